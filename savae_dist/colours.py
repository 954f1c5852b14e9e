"""The colours of every curve and class that is drawn."""

# Petroff 2021, "Accessible color sequences for data visualization": people who see fewer colours can tell them apart.
COLOURS = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
