//! A client's connection inside a worker: decrypted bytes in, frames out, a bounded queue back.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::TcpStream;

use rustls::ServerConnection;

use super::strangers::Admission;
use crate::turn::FiveTuple;

/// Bytes read at once.
pub(super) const CHUNK: usize = 16 * 1024;

/// A connection that was accepted, on its way to a worker.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    /// The TLS state after the handshake.
    pub(super) tls: Option<Box<ServerConnection>>,
    pub(super) five_tuple: FiveTuple,
    /// Decrypted bytes that were read already.
    pub(super) unread: Vec<u8>,
    /// Its share of what one address may hold before it has authenticated.
    pub(super) admission: Admission,
}

/// What reading a connection led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There may be more.
    More,
    /// Nothing more for now.
    Drained,
    /// The client is gone, or TLS is broken.
    Closed,
}

/// A connection of a worker.
pub(super) struct Stream {
    socket: mio::net::TcpStream,
    tls: Option<Box<ServerConnection>>,
    pub(super) five_tuple: FiveTuple,
    /// Decrypted bytes that are no whole frame yet.
    pub(super) inbox: Vec<u8>,
    /// Bytes for the socket; those before `written` are gone already.
    outbox: Vec<u8>,
    written: usize,
    /// Held until the client has an allocation.
    pub(super) admission: Option<Admission>,
}

impl Stream {
    /// Takes over a connection with everything that was decrypted of it so far.
    pub(super) fn new(connection: Connection) -> Self {
        let Connection { mut tls, unread: mut inbox, .. } = connection;
        if let Some(tls) = &mut tls {
            // What cannot be read now is reported when the socket is read.
            let _ = read_decrypted(tls, &mut inbox);
        }
        Self {
            socket: mio::net::TcpStream::from_std(connection.socket),
            tls,
            five_tuple: connection.five_tuple,
            inbox,
            outbox: Vec::new(),
            written: 0,
            admission: Some(connection.admission),
        }
    }

    pub(super) const fn socket(&mut self) -> &mut mio::net::TcpStream {
        &mut self.socket
    }

    /// Reads one chunk through `scratch` and appends what it decrypts to the inbox.
    pub(super) fn read(&mut self, scratch: &mut [u8; CHUNK]) -> Progress {
        let Self { socket, tls, inbox, .. } = self;
        let result = match tls {
            None => read_plain(socket, inbox, scratch),
            Some(tls) => read_tls(socket, tls, inbox),
        };
        let progress = match result {
            Ok(progress) => progress,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => Progress::Drained,
                io::ErrorKind::Interrupted => Progress::More,
                _ => Progress::Closed,
            },
        };
        // Handshake messages and alerts that reading gave rise to.
        self.encrypt();
        progress
    }

    /// Bytes that wait for the socket.
    pub(super) const fn queued(&self) -> usize {
        self.outbox.len() - self.written
    }

    /// Queues a message made of parts. Over TLS it is one record, as far as a record reaches: old clients expect to read
    /// a whole message at once.
    pub(super) fn push(&mut self, parts: [&[u8]; 3]) {
        if self.written > 0 && self.written == self.outbox.len() {
            self.outbox.clear();
            self.written = 0;
        }
        match &mut self.tls {
            None => parts.iter().for_each(|part| self.outbox.extend_from_slice(part)),
            // Without a buffer limit the writer takes everything; `encrypt` empties it at once.
            Some(tls) => drop(tls.writer().write_vectored(&parts.map(IoSlice::new))),
        }
        self.encrypt();
    }

    fn encrypt(&mut self) {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                // Into memory: this does not fail.
                let _ = tls.write_tls(&mut self.outbox);
            }
        }
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.outbox.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.queued() == 0 {
            self.outbox.clear();
            self.outbox.shrink_to(CHUNK);
            self.written = 0;
        } else if self.written > CHUNK {
            self.outbox.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Says goodbye, as far as the socket takes it.
    pub(super) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.encrypt();
        let _ = self.flush();
    }
}

fn read_plain(
    socket: &mut mio::net::TcpStream,
    inbox: &mut Vec<u8>,
    scratch: &mut [u8; CHUNK],
) -> io::Result<Progress> {
    let count = socket.read(scratch)?;
    inbox.extend_from_slice(scratch.get(..count).unwrap_or_default());
    Ok(if count == 0 { Progress::Closed } else { Progress::More })
}

fn read_tls(
    socket: &mut mio::net::TcpStream,
    tls: &mut ServerConnection,
    inbox: &mut Vec<u8>,
) -> io::Result<Progress> {
    if tls.read_tls(socket)? == 0 {
        return Ok(Progress::Closed);
    }
    read_decrypted(tls, inbox)
}

/// Moves everything that has been decrypted into the inbox.
fn read_decrypted(tls: &mut ServerConnection, inbox: &mut Vec<u8>) -> io::Result<Progress> {
    let state = tls.process_new_packets().map_err(io::Error::other)?;
    let plain = state.plaintext_bytes_to_read();
    let start = inbox.len();
    inbox.resize(start + plain, 0);
    tls.reader().read_exact(inbox.get_mut(start..).unwrap_or_default())?;
    Ok(if state.peer_has_closed() { Progress::Closed } else { Progress::More })
}
