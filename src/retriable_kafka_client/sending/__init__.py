"""A message on its way to a client: as one record or as chunks. Owns no thread and no consumer."""
