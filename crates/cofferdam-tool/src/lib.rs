//! The Tool seam: specification, effects, context, errors
