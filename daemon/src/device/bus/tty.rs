//! A serial port, raw and asynchronous.
//!
//! In: a [`Port`]. Out: bytes as they come. Invariant: the port is in the mode that was asked for, is ours alone among
//! programs that lock (flock), and blocks nobody.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::termios::{self, BaudRate, ControlFlags, FlushArg, InputFlags, SetArg, SpecialCharacterIndices},
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    BusError,
    serial::{Parity, Port},
};

/// Bits per second that every driver knows.
const RATES: [(u32, BaudRate); 11] = [
    (300, BaudRate::B300),
    (600, BaudRate::B600),
    (1200, BaudRate::B1200),
    (2400, BaudRate::B2400),
    (4800, BaudRate::B4800),
    (9600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
];

/// Whether a line can be set to this speed.
#[must_use]
pub fn knows(baud: u32) -> bool {
    RATES.iter().any(|(rate, _)| *rate == baud)
}

/// An open port.
#[derive(Debug)]
pub struct Tty {
    file: AsyncFd<File>,
}

impl Tty {
    /// Opens and locks the port and sets its speed and form.
    pub fn open(port: &Port) -> Result<Self, BusError> {
        let failed = |why: String| BusError::Port { port: port.path.clone(), why };
        let flags = (OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&port.path);
        let file = opened.map_err(|e| {
            failed(match e.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) => {
                    "is not there; plug the adapter in, or name another port".to_owned()
                }
                Some(Errno::EACCES | Errno::EPERM) => {
                    "no permission; the daemon's user must be in the group of the port's device file"
                        .to_owned()
                }
                Some(Errno::EBUSY) => "another program holds it; end that program".to_owned(),
                _ => format!("cannot be opened: {e}"),
            })
        })?;
        file.try_lock().map_err(|e| {
            failed(match e {
                TryLockError::WouldBlock => "another program holds it; end that program".to_owned(),
                TryLockError::Error(e) => format!("cannot be locked: {e}"),
            })
        })?;
        set(&file, port).map_err(|errno| {
            failed(match errno {
                Errno::ENOTTY => "is not a serial port".to_owned(),
                other => format!("cannot be set to {} Bd: {}", port.baud, other.desc()),
            })
        })?;
        #[expect(
            deprecated,
            reason = "its soundness hangs on the descriptor's owner, and a File owns its own"
        )]
        let file = AsyncFd::with_interest(file, Interest::READABLE | Interest::WRITABLE)
            .map_err(|e| failed(format!("cannot be watched: {e}")))?;
        Ok(Self { file })
    }

    /// Throws away what has come and was not read.
    pub fn flush(&self) -> io::Result<()> {
        termios::tcflush(self.file.get_ref(), FlushArg::TCIFLUSH).map_err(io::Error::from)
    }

    /// What has come, at least one byte; 0 when the other side of a pseudo terminal is gone. Cancel safe.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = self.file.async_io(Interest::READABLE, |mut file| file.read(buffer)).await;
        match outcome {
            // So says the kernel when nobody holds the other side of a pseudo terminal, or the adapter was pulled.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => Ok(0),
            other => other,
        }
    }

    /// Hands everything to the kernel.
    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let n = self.file.async_io(Interest::WRITABLE, |mut file| file.write(bytes)).await?;
            bytes = &bytes[n..];
        }
        Ok(())
    }
}

fn set(file: &File, port: &Port) -> nix::Result<()> {
    let rate = RATES.iter().find(|(rate, _)| *rate == port.baud).map_or(BaudRate::B9600, |(_, r)| *r);
    let mut mode = termios::tcgetattr(file)?;
    termios::cfmakeraw(&mut mode);
    termios::cfsetspeed(&mut mode, rate)?;
    mode.control_flags.remove(
        ControlFlags::CSIZE
            | ControlFlags::PARENB
            | ControlFlags::PARODD
            | ControlFlags::CSTOPB
            | ControlFlags::CRTSCTS,
    );
    mode.control_flags.insert(ControlFlags::CREAD | ControlFlags::CLOCAL);
    mode.control_flags.insert(if port.data_bits == 7 { ControlFlags::CS7 } else { ControlFlags::CS8 });
    match port.parity {
        Parity::None => {}
        Parity::Even => mode.control_flags.insert(ControlFlags::PARENB),
        Parity::Odd => mode.control_flags.insert(ControlFlags::PARENB | ControlFlags::PARODD),
    }
    if port.stop_bits == 2 {
        mode.control_flags.insert(ControlFlags::CSTOPB);
    }
    // A character with a wrong parity arrives as zero: the check sum finds it.
    mode.input_flags.insert(InputFlags::INPCK);
    // With 0 an empty line would read as the end of the file.
    mode.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    mode.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    termios::tcsetattr(file, SetArg::TCSANOW, &mode)?;
    termios::tcflush(file, FlushArg::TCIOFLUSH)
}
