from .clusters import kmeans_clusters as kmeans_clusters
from .constrained import Clustering as Clustering
from .constrained import constrained_kmeans as constrained_kmeans
from .neighbors import nearest_rows as nearest_rows
from .pseudo_labels import cluster_pseudo_labels as cluster_pseudo_labels
from .pseudo_labels import confusing_counts as confusing_counts
from .pseudo_labels import n_pseudo_clusters as n_pseudo_clusters
from .pseudo_labels import split_clusters as split_clusters
