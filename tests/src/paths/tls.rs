//! TLS in the kernel, with keys that both ends have agreed on in a place that no wire leads to.

use std::net::TcpStream;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Absent;
use super::flags::{set, set_raw};

// include/uapi/linux/tls.h
const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;
const TLS_1_2_VERSION: u16 = 0x0303;
const TLS_CIPHER_AES_GCM_128: u16 = 51;

/// `struct tls12_crypto_info_aes_gcm_128`
#[repr(C)]
struct CryptoInfo {
    version: u16,
    cipher_type: u16,
    iv: [u8; 8],
    key: [u8; 16],
    salt: [u8; 4],
    rec_seq: [u8; 8],
}

/// From here on both sockets speak TLS.
pub fn start(client: &TcpStream, server: &TcpStream) -> Result<()> {
    for stream in [client, server] {
        match set_raw(stream, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls") {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                return Err(Absent(format!("the module tls, CONFIG_TLS ({error})")).into());
            }
            other => other.context("TCP_ULP")?,
        }
    }
    let keys = |number| CryptoInfo {
        version: TLS_1_2_VERSION,
        cipher_type: TLS_CIPHER_AES_GCM_128,
        iv: [number; 8],
        key: [number; 16],
        salt: [number; 4],
        rec_seq: [0; 8],
    };
    for (from, to, number) in [(client, server, 1), (server, client, 2)] {
        match set_raw(from, libc::SOL_TLS, TLS_TX, &keys(number)) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
                return Err(Absent(format!("the cipher gcm(aes) ({error})")).into());
            }
            other => other.context("TLS_TX")?,
        }
        set(to, libc::SOL_TLS, TLS_RX, &keys(number)).context("TLS_RX")?;
    }
    Ok(())
}
