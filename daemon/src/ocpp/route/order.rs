//! CALLs to the EVSE that a person ordered. They go the way of our own, one at a time, behind the limit and the
//! backend's CALLs; their answers are for the person alone (OCPP 2.0.1 Part 4 §6.4).

use super::{Out, Route, frame, south::What};
use crate::time::Now;

/// A CALL of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// What its outcome is told under.
    pub(crate) ticket: u64,
    /// Action.
    pub(crate) action: &'static str,
    /// Payload, an object.
    pub(crate) payload: String,
}

/// Why an order has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The EVSE is not connected, or went away meanwhile.
    Away,
    /// It did not answer in time.
    Silent,
    /// It answered with this CALLERROR.
    Error(String),
}

/// Most orders that wait for an EVSE.
const MOST_ORDERS: usize = 16;

impl Route {
    /// Takes an order; its outcome comes as [`Out::Answered`].
    pub(crate) fn order(&mut self, now: Now, order: Order) {
        match &mut self.south {
            Some(south) if south.orders.len() < MOST_ORDERS => south.orders.push_back(order),
            _ => self.order_ended(order.ticket, Err(NoAnswer::Away)),
        }
        self.go_on(now);
    }

    pub(super) fn order_ended(&mut self, ticket: u64, outcome: Result<String, NoAnswer>) {
        self.out.push_back(Out::Answered { ticket, outcome });
    }

    /// The EVSE has answered an order with this text.
    pub(super) fn order_answered(&mut self, ticket: u64, text: &str) {
        let outcome = match frame::peek(text) {
            Ok(frame::Frame::Answer { payload, .. }) => Ok(payload.to_owned()),
            Ok(frame::Frame::Error { code, .. }) => Err(NoAnswer::Error(code)),
            _ => Err(NoAnswer::Silent),
        };
        self.order_ended(ticket, outcome);
    }

    /// Sends the next order.
    pub(super) fn send_order(&mut self, now: Now) {
        let order = self.south.as_mut().and_then(|south| south.orders.pop_front());
        if let Some(Order { ticket, action, payload }) = order {
            self.send_own(now, action, &payload, What::Order(ticket));
        }
    }

    /// The running transaction as the EVSE knows it: its number, and its name in 2.x.
    pub(crate) fn running(&self) -> Option<(i64, &str)> {
        let running = self.transactions.last().filter(|t| !t.ended)?;
        Some((running.known_as(), running.sameness.as_str()))
    }
}
