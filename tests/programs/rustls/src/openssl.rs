//! The little of OpenSSL's API that is used here.

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;

const PEM: c_int = 1;

#[link(name = "ssl", kind = "static")]
unsafe extern "C" {
    fn TLS_method() -> *const c_void;
    fn SSL_CTX_new(method: *const c_void) -> *mut c_void;
    fn SSL_CTX_free(context: *mut c_void);
    fn SSL_CTX_use_certificate_file(
        context: *mut c_void,
        path: *const c_char,
        form: c_int,
    ) -> c_int;
    fn SSL_CTX_use_PrivateKey_file(context: *mut c_void, path: *const c_char, form: c_int)
    -> c_int;
    fn SSL_new(context: *mut c_void) -> *mut c_void;
    fn SSL_free(ssl: *mut c_void);
    fn SSL_set_fd(ssl: *mut c_void, fd: c_int) -> c_int;
    fn SSL_connect(ssl: *mut c_void) -> c_int;
    fn SSL_accept(ssl: *mut c_void) -> c_int;
    fn SSL_read(ssl: *mut c_void, buf: *mut u8, len: c_int) -> c_int;
    fn SSL_write(ssl: *mut c_void, buf: *const u8, len: c_int) -> c_int;
    fn SSL_shutdown(ssl: *mut c_void) -> c_int;
    fn SSL_ctrl(ssl: *mut c_void, command: c_int, number: c_long, at: *mut c_void) -> c_long;
}

#[link(name = "crypto", kind = "static")]
unsafe extern "C" {}

pub struct Context(*mut c_void);

// OpenSSL counts the owners of a context, and locks it.
unsafe impl Sync for Context {}

pub struct Stream(*mut c_void);

impl Context {
    pub fn new(files: [&str; 2]) -> Context {
        let [cert, key] = files.map(|file| CString::new(file).unwrap());
        unsafe {
            let context = SSL_CTX_new(TLS_method());
            assert_eq!(SSL_CTX_use_certificate_file(context, cert.as_ptr(), PEM), 1);
            assert_eq!(SSL_CTX_use_PrivateKey_file(context, key.as_ptr(), PEM), 1);
            Context(context)
        }
    }

    fn open(&self, socket: &TcpStream) -> Stream {
        unsafe {
            let ssl = SSL_new(self.0);
            assert_eq!(SSL_set_fd(ssl, socket.as_raw_fd()), 1);
            // SSL_CTRL_MODE: SSL_MODE_AUTO_RETRY
            SSL_ctrl(ssl, 33, 4, std::ptr::null_mut());
            Stream(ssl)
        }
    }

    pub fn connect(&self, socket: &TcpStream) -> Stream {
        let stream = self.open(socket);
        assert_eq!(unsafe { SSL_connect(stream.0) }, 1);
        stream
    }

    pub fn accept(&self, socket: &TcpStream) -> Stream {
        let stream = self.open(socket);
        assert_eq!(unsafe { SSL_accept(stream.0) }, 1);
        stream
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        unsafe { SSL_CTX_free(self.0) }
    }
}

fn moved(count: c_int) -> Result<usize> {
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::other(format!("OpenSSL returned {count}"))),
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let len = c_int::try_from(buf.len()).unwrap();
        moved(unsafe { SSL_read(self.0, buf.as_mut_ptr(), len) })
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> Result<usize> {
        let len = c_int::try_from(buf.len()).unwrap();
        moved(unsafe { SSL_write(self.0, buf.as_ptr(), len) })
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        unsafe {
            SSL_shutdown(self.0);
            SSL_free(self.0);
        }
    }
}
