//! The life of a flag: from its release in steps to its end, and what a change would do before it is made.
//!
//! Deploying is not releasing, and a flag is debt. Everything here is a plain function of declared state, recorded facts and a given time.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`release`] | what a release in steps does next |
//! | [`compare`] | who would see something else after an edit; how two rulesets differ on the same traffic |
//! | [`exposure`] | who was shown what, once each |
//! | [`stale`] | which flags have outlived their purpose |
//! | [`usage`] | which flags were evaluated, and when last |
//! | [`scan`] | where source code names flags |

pub mod compare;
pub mod exposure;
pub mod release;
pub mod scan;
pub mod stale;
pub mod usage;
