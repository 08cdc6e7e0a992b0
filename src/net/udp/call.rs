//! The system calls themselves: many messages in one call where there is such a call, one by one elsewhere.

use std::io;
use std::os::fd::RawFd;

use libc::msghdr;

use super::Offload;

/// A message header and how many bytes went through it.
#[cfg(target_os = "linux")]
pub(super) type Slot = libc::mmsghdr;

/// A message header and how many bytes went through it.
#[cfg(not(target_os = "linux"))]
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) msg_hdr: msghdr,
    pub(super) msg_len: libc::c_uint,
}

/// A slot without buffers.
pub(super) const fn empty() -> Slot {
    // SAFETY: a plain C structure for which zero bytes are valid.
    unsafe { std::mem::zeroed() }
}

/// Receives into the slots until there is nothing more; how many were filled.
///
/// # Safety
/// Every slot points to live buffers, exclusively held, with their true lengths.
pub(super) unsafe fn receive(socket: RawFd, slots: &mut [Slot], offload: Offload) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    if offload == Offload::Segmentation {
        return uninterrupted(|| {
            let (first, count) = (slots.as_mut_ptr(), slots.len() as _);
            // SAFETY: the caller's promise.
            let filled = unsafe {
                libc::recvmmsg(socket, first, count, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
            };
            isize::try_from(filled).unwrap_or(-1)
        });
    }
    let _ = offload;
    one_by_one(slots, |header| {
        // SAFETY: the caller's promise.
        unsafe { libc::recvmsg(socket, header, libc::MSG_DONTWAIT) }
    })
}

/// Sends the slots in order up to the first that fails; how many were sent.
///
/// # Safety
/// Every slot points to live buffers with their true lengths.
pub(super) unsafe fn send(socket: RawFd, slots: &mut [Slot], offload: Offload) -> io::Result<usize> {
    #[cfg(target_os = "linux")]
    if offload == Offload::Segmentation {
        return uninterrupted(|| {
            let (first, count) = (slots.as_mut_ptr(), slots.len() as _);
            // SAFETY: the caller's promise.
            let sent = unsafe { libc::sendmmsg(socket, first, count, libc::MSG_DONTWAIT as _) };
            isize::try_from(sent).unwrap_or(-1)
        });
    }
    let _ = offload;
    one_by_one(slots, |header| {
        // SAFETY: the caller's promise.
        unsafe { libc::sendmsg(socket, header, libc::MSG_DONTWAIT) }
    })
}

/// Like the batched calls: an error shows only when it is the first message's.
fn one_by_one(slots: &mut [Slot], mut call: impl FnMut(*mut msghdr) -> isize) -> io::Result<usize> {
    let mut done = 0;
    for slot in slots {
        match uninterrupted(|| call(&raw mut slot.msg_hdr)) {
            Ok(length) => slot.msg_len = length as _,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        done += 1;
    }
    Ok(done)
}

/// Repeats a call while signals interrupt it.
pub(super) fn uninterrupted(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(result) = usize::try_from(call()) {
            return Ok(result);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
