"""Training on Apache Spark: the same snapshot, the same kind of bundle, people in partitions."""
