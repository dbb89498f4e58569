//! The append-only run journal seam, with an in-memory form
