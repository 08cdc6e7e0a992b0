//! The routers on real sockets, driven by clients.

mod anonymous;
mod api;
mod autobahn;
mod call;
mod origins;
mod plain;
mod rest;
mod resume;
mod socketio;
mod support;
mod webhooks;
mod websocket;
