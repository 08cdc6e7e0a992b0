//! Lets a client that speaks UDP only reach a server over a stream: datagrams in, messages of the stream out.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::Line;

/// A bridge for one client.
pub(crate) struct Bridge {
    /// Where the client believes the server to be.
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    /// Starts one over a line.
    pub(crate) fn start(line: Line) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut client = None;
            let mut buffer = vec![0; 65_536];
            socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, source)) = socket.recv_from(&mut buffer) {
                    client = Some(source);
                    // ChannelData is padded in a stream; whole STUN messages are so by themselves.
                    buffer[length..length + 4].fill(0);
                    line.try_send(&buffer[..length.next_multiple_of(4)]);
                }
                while let (Some(client), Some(message)) =
                    (client, line.receive_within(Duration::from_millis(1)))
                {
                    let _ = socket.send_to(&message, client);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
