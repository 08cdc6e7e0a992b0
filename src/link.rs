//! `link`
