//! The V4A patch format: a pure, linear, all-or-nothing engine, and its tool
