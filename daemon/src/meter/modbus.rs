//! One connection to a Modbus TCP server, and what can go wrong on it.
//!
//! In: blocks to read. Out: their registers, or why not. Invariant: an answer counts only for the request that is
//! open: after a timeout or anything unexpected the caller drops the connection, so a late answer has nowhere to
//! arrive.

use std::{io, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_modbus::{
    ExceptionCode, Request, Response, Slave,
    client::{Client, Context, tcp},
};

use super::decode::DecodeError;
use crate::device::definition::{Block, Function};

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The connection was not made.
    #[error("no connection to {address}: {source}")]
    Connect { address: String, source: io::Error },
    /// The other side does not answer the connection's first packet.
    #[error("no connection to {address} within {within:?}")]
    ConnectTimeout { address: String, within: Duration },
    /// The request went out, nothing came back.
    #[error("no answer within {within:?} to registers from 0x{start:04X} of unit {unit}")]
    Timeout { within: Duration, start: u16, unit: u8 },
    /// The device says no.
    #[error("{what} (exception {code}) for registers from 0x{start:04X} of unit {unit}")]
    Exception { what: &'static str, code: u8, start: u16, unit: u8 },
    /// What came back is not the answer to what was asked.
    #[error("not an answer to registers from 0x{start:04X} of unit {unit}: {why}")]
    Foreign { start: u16, unit: u8, why: String },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    /// The other side ended the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// The registers make no reading.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl ReadError {
    /// Whether another answer may still be under way, or the stream is out of step.
    pub(super) const fn spoils_connection(&self) -> bool {
        match self {
            Self::Exception { .. }
            | Self::Decode(DecodeError::NotAvailable { .. } | DecodeError::Implausible { .. }) => false,
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Timeout { .. }
            | Self::Foreign { .. }
            | Self::Broken(_)
            | Self::Closed
            | Self::Decode(DecodeError::Length { .. } | DecodeError::Missing(_)) => true,
        }
    }

    /// What stays the same while the values in the message change: it is told once.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Connect { source, .. } => format!("connect {:?}", source.kind()),
            Self::ConnectTimeout { .. } => "connect timeout".to_owned(),
            Self::Timeout { .. } => "timeout".to_owned(),
            Self::Exception { code, start, .. } => format!("exception {code} {start}"),
            Self::Foreign { .. } => "foreign".to_owned(),
            Self::Broken(_) | Self::Closed => "broken".to_owned(),
            Self::Decode(error) => match (error, error.quantity()) {
                (DecodeError::NotAvailable { .. }, Some(quantity)) => format!("not available {quantity}"),
                (_, Some(quantity)) => format!("implausible {quantity}"),
                (_, None) => "short".to_owned(),
            },
        }
    }
}

/// Connects within the time given.
pub(super) async fn connect(address: &str, unit: u8, within: Duration) -> Result<Context, ReadError> {
    match timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // A request is one small packet; waiting to fill it would cost up to 40 ms.
            stream.set_nodelay(true).map_err(ReadError::Broken)?;
            Ok(tcp::attach_slave(stream, Slave(unit)))
        }
        Ok(Err(source)) => Err(ReadError::Connect { address: address.to_owned(), source }),
        Err(_) => Err(ReadError::ConnectTimeout { address: address.to_owned(), within }),
    }
}

/// Reads one block. After an error that [`ReadError::spoils_connection`] the context must be dropped.
pub(super) async fn read(
    context: &mut Context,
    block: &Block,
    unit: u8,
    within: Duration,
) -> Result<Vec<u16>, ReadError> {
    let start = block.start;
    let request = match block.function {
        Function::Holding => Request::ReadHoldingRegisters(start, block.count),
        Function::Input => Request::ReadInputRegisters(start, block.count),
    };
    // Not the crate's read_…_registers: they assert the length of the answer.
    let Ok(answer) = timeout(within, context.call(request)).await else {
        return Err(ReadError::Timeout { within, start, unit });
    };
    match answer {
        Ok(Ok(Response::ReadHoldingRegisters(registers) | Response::ReadInputRegisters(registers))) => {
            if registers.len() == usize::from(block.count) {
                Ok(registers)
            } else {
                Err(DecodeError::Length { start, wanted: block.count, got: registers.len() }.into())
            }
        }
        Ok(Ok(_)) => Err(ReadError::Foreign { start, unit, why: "another function's answer".to_owned() }),
        Ok(Err(exception)) => {
            let (what, code) = (meaning(exception), u8::from(exception));
            Err(ReadError::Exception { what, code, start, unit })
        }
        Err(tokio_modbus::Error::Transport(error)) => Err(match error.kind() {
            // Frames that cannot be parsed arrive as I/O errors of these kinds.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                ReadError::Foreign { start, unit, why: error.to_string() }
            }
            io::ErrorKind::UnexpectedEof => {
                ReadError::Foreign { start, unit, why: "the frame ends before its registers".to_owned() }
            }
            // At the end of the stream the crate gives whatever error the thread met last, or none.
            io::ErrorKind::WouldBlock => ReadError::Closed,
            _ if error.raw_os_error() == Some(0) => ReadError::Closed,
            _ => ReadError::Broken(error),
        }),
        Err(tokio_modbus::Error::Protocol(error)) => {
            let why = match error {
                tokio_modbus::ProtocolError::HeaderMismatch { message, .. } => message,
                tokio_modbus::ProtocolError::FunctionCodeMismatch { request, .. } => {
                    format!("function {request} was asked, another is answered")
                }
            };
            Err(ReadError::Foreign { start, unit, why })
        }
    }
}

/// MODBUS Application Protocol V1.1b3 §7, as what to look at.
const fn meaning(exception: ExceptionCode) -> &'static str {
    match exception {
        ExceptionCode::IllegalFunction => "the device does not know this function",
        ExceptionCode::IllegalDataAddress => "the device has no such registers",
        ExceptionCode::IllegalDataValue => "the device does not give so many registers at once",
        ExceptionCode::ServerDeviceFailure => "the device reports its own failure",
        ExceptionCode::Acknowledge => "the device needs longer",
        ExceptionCode::ServerDeviceBusy => "the device is busy",
        ExceptionCode::MemoryParityError => "the device reports a memory error",
        ExceptionCode::GatewayPathUnavailable => "the Modbus gateway has no way to the unit",
        ExceptionCode::GatewayTargetDevice => "no device answers behind the Modbus gateway",
        ExceptionCode::Custom(_) => "the device refuses",
    }
}
