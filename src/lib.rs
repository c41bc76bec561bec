//! flowline: a delivery SDK.
