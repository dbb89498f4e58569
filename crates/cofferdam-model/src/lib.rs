//! The Model seam: requests, responses, stream events, errors, and a scripted model
