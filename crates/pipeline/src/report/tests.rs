//! A page is stable, whole and harmless.
