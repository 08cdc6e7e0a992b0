//! The only place that turns an event into a metric, a log line, a record.
