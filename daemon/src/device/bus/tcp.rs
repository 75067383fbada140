//! One connection to a Modbus TCP server.
//!
//! In: requests. Out: registers, or why not. Invariant: an answer counts only for the request that is open: after a
//! timeout or anything unexpected the connection is dropped, so a late answer has nowhere to arrive.

use std::{io, time::Duration};

use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout},
};
use tokio_modbus::{
    Request as Wire, Response, Slave,
    client::{Client as _, Context, tcp},
    slave::SlaveContext as _,
};

use super::{Ask, BusError, Pace, pdu::Request};
use crate::device::definition::Function;

pub(super) struct Client {
    address: String,
    pace: Pace,
    context: Option<Context>,
    /// When the last answer came.
    last: Option<Instant>,
}

impl Client {
    pub(super) fn new(address: String, pace: Pace) -> Self {
        Self { address, pace, context: None, last: None }
    }

    pub(super) async fn exchange(&mut self, ask: &Ask) -> Result<Vec<u16>, BusError> {
        if let Some(last) = self.last {
            sleep_until(last + ask.rest).await;
        }
        let mut context = match self.context.take() {
            Some(context) => context,
            None => self.connect().await?,
        };
        context.set_slave(Slave(ask.unit));
        // The context comes back only when the stream is known to be in step.
        let outcome = call(&mut context, ask, self.pace.answer).await;
        self.last = Some(Instant::now());
        if matches!(&outcome, Ok(_) | Err(BusError::Exception { .. })) {
            self.context = Some(context);
        }
        outcome
    }

    async fn connect(&mut self) -> Result<Context, BusError> {
        let (address, within) = (self.address.clone(), self.pace.connect);
        match timeout(within, TcpStream::connect(&address)).await {
            Ok(Ok(stream)) => {
                // A request is one small packet; waiting to fill it would cost up to 40 ms.
                stream.set_nodelay(true).map_err(|e| BusError::Broken(e.to_string()))?;
                Ok(tcp::attach(stream))
            }
            Ok(Err(e)) => Err(BusError::Connect { address, kind: e.kind(), why: e.to_string() }),
            Err(_) => Err(BusError::ConnectTimeout { address, within }),
        }
    }
}

// `&mut` although nothing changes: the client in it is Send, not Sync.
async fn call(context: &mut Context, ask: &Ask, within: Duration) -> Result<Vec<u16>, BusError> {
    let (unit, start) = (ask.unit, ask.request.start());
    let request = match &ask.request {
        Request::Read { function: Function::Holding, start, count } => {
            Wire::ReadHoldingRegisters(*start, *count)
        }
        Request::Read { function: Function::Input, start, count } => Wire::ReadInputRegisters(*start, *count),
        Request::WriteOne { register, value } => Wire::WriteSingleRegister(*register, *value),
        Request::WriteMany { start, values } => {
            Wire::WriteMultipleRegisters(*start, values.as_slice().into())
        }
    };
    // Not the crate's read_…_registers: they assert the length of the answer.
    let Ok(answer) = timeout(within, context.call(request)).await else {
        return Err(BusError::Timeout { within, start, unit });
    };
    let foreign = |why: String| BusError::Foreign { start, unit, why };
    match answer {
        Ok(Ok(response)) => match (&ask.request, response) {
            (
                Request::Read { function: Function::Holding, count, .. },
                Response::ReadHoldingRegisters(registers),
            )
            | (
                Request::Read { function: Function::Input, count, .. },
                Response::ReadInputRegisters(registers),
            ) => {
                if registers.len() == usize::from(*count) {
                    Ok(registers)
                } else {
                    Err(BusError::Length { start, wanted: *count, got: registers.len() })
                }
            }
            (Request::WriteOne { register, value }, Response::WriteSingleRegister(r, v))
                if (*register, *value) == (r, v) =>
            {
                Ok(Vec::new())
            }
            (Request::WriteMany { start, values }, Response::WriteMultipleRegisters(s, n))
                if *start == s && values.len() == usize::from(n) =>
            {
                Ok(Vec::new())
            }
            _ => Err(foreign("another request's answer".to_owned())),
        },
        Ok(Err(exception)) => Err(BusError::Exception { code: u8::from(exception), start, unit }),
        Err(tokio_modbus::Error::Transport(error)) => Err(match error.kind() {
            // Frames that cannot be parsed arrive as I/O errors of these kinds.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => foreign(error.to_string()),
            io::ErrorKind::UnexpectedEof => foreign("the frame ends before its registers".to_owned()),
            // At the end of the stream the crate gives whatever error the thread met last, or none.
            io::ErrorKind::WouldBlock => BusError::Closed,
            _ if error.raw_os_error() == Some(0) => BusError::Closed,
            _ => BusError::Broken(error.to_string()),
        }),
        Err(tokio_modbus::Error::Protocol(error)) => Err(foreign(match error {
            tokio_modbus::ProtocolError::HeaderMismatch { message, .. } => message,
            tokio_modbus::ProtocolError::FunctionCodeMismatch { request, .. } => {
                format!("function {request} was asked, another is answered")
            }
        })),
    }
}
