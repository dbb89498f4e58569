//! The table in `SECURITY.md`: written by a run, and compared with the next.
