//! The turn loop: streaming events, parallel tools, cancellation, deadlines, journal
