//! Typed topics: the hurry beside the log's truth.
