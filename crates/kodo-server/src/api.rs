//! The product API: one operation a file, `NOUN/VERB.rs`.

pub(crate) mod idempotency;
pub(crate) mod params;

pub(crate) mod health {
    pub(crate) mod healthz;
    pub(crate) mod readyz;
}

pub(crate) mod intents {
    pub(crate) mod create;
}

pub(crate) mod runs {
    pub(crate) mod create;
    pub(crate) mod read;
}

pub(crate) mod artifacts {
    pub(crate) mod list;
    pub(crate) mod read;
}

pub(crate) mod crashdemo {
    pub(crate) mod start;
}

pub(crate) mod marks {
    pub(crate) mod read;
}
