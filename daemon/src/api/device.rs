//! `DeviceService`: for who puts the site into operation.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use ladewart_proto::v1::{
    CheckSiteRequest, CheckSiteResponse, ClearRelayRequest, ClearRelayResponse, DeviceValue,
    ReadDeviceRequest, ReadDeviceResponse, ScanBusRequest, ScanBusResponse, SiteCheck, TestSetpointRequest,
    TestSetpointResponse, device_service_server::DeviceService,
};
use serde_json::json;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::{
    clock,
    device::desk::{Cap, Desk},
    site::check::{self, Check},
    units::Milliamps,
};

pub(super) struct Service(pub(super) Context);

/// Units of a serial line (Modbus over Serial Line V1.02 §2.2).
const LAST_UNIT: u32 = 247;

impl Service {
    fn desk(&self) -> Result<&Desk, Status> {
        self.0.desk.as_ref().ok_or_else(|| Status::failed_precondition("this site has no devices of its own"))
    }

    fn checks(&self, desk: &Desk) -> Vec<Check> {
        let mut checks = check::checks(desk.config(), &self.0.view());
        let now = self.0.now().wall;
        let clock = (!clock::plausible(now)).then_some("set the clock: certificates and evidence hang on it");
        checks.push(Check::new("clock", now.to_string(), clock));
        if let Some(status) = self.0.uplink() {
            let warnings = status.warnings.join("; ");
            let advice = (!warnings.is_empty()).then_some("do what the warning says: uplink status");
            let found = if warnings.is_empty() { "no warning".to_owned() } else { warnings };
            checks.push(Check::new("uplink and certificates", found, advice));
        }
        checks
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl DeviceService for Service {
    type ScanBusStream = Answers<ScanBusResponse>;

    async fn scan_bus(
        &self,
        request: Request<ScanBusRequest>,
    ) -> Result<Response<Self::ScanBusStream>, Status> {
        let request = request.into_inner();
        let desk = self.desk()?.clone();
        let bus = desk.bus(&request.bus).map_err(|why| convert::invalid("bus", why))?;
        let first = if request.first == 0 { 1 } else { request.first };
        let last = if request.last == 0 { LAST_UNIT } else { request.last };
        if first > last || last > 255 {
            return Err(convert::invalid("first", format!("{first} to {last} are no units; use 1 to 247")));
        }
        let units = stream::iter(first..=last);
        let answers = futures_util::StreamExt::then(units, move |unit| {
            let (desk, bus) = (desk.clone(), bus.clone());
            async move {
                let found = desk.look(&bus, u8::try_from(unit).unwrap_or(u8::MAX)).await;
                Ok(ScanBusResponse {
                    unit: found.unit.into(),
                    answers: found.answers,
                    definitions: found.definitions,
                })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ReadDeviceStream = Answers<ReadDeviceResponse>;

    async fn read_device(
        &self,
        request: Request<ReadDeviceRequest>,
    ) -> Result<Response<Self::ReadDeviceStream>, Status> {
        let request = request.into_inner();
        let desk = self.desk()?.clone();
        let reader = desk.asked(&request.id).map_err(|why| convert::invalid("id", why))?;
        let every =
            Duration::from_millis(if request.interval_ms == 0 { 1000 } else { request.interval_ms.into() });
        let every = every.clamp(Duration::from_millis(100), Duration::from_secs(60));
        let answers =
            stream::unfold((desk, reader, Instant::now()), move |(desk, mut reader, due)| async move {
                tokio::time::sleep_until(due).await;
                let begun = Instant::now();
                let outcome = desk.values(&mut reader).await;
                let took_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
                let answer = match outcome {
                    Ok(values) => ReadDeviceResponse {
                        values: values
                            .into_iter()
                            .map(|(quantity, value)| DeviceValue {
                                quantity: quantity.to_string(),
                                value: value.as_ref().copied().unwrap_or_default(),
                                unit: quantity.kind().base().to_string(),
                                problem: value.err().unwrap_or_default(),
                            })
                            .collect(),
                        problem: String::new(),
                        took_ms,
                    },
                    Err(problem) => ReadDeviceResponse { values: Vec::new(), problem, took_ms },
                };
                Some((Ok(answer), (desk, reader, begun + every)))
            });
        Ok(Response::new(Box::pin(answers)))
    }

    type TestSetpointStream = Answers<TestSetpointResponse>;

    async fn test_setpoint(
        &self,
        request: Request<TestSetpointRequest>,
    ) -> Result<Response<Self::TestSetpointStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let desk = self.desk()?.clone();
        let known = desk.config().evses.iter().find(|e| e.id.as_str() == request.evse);
        let evse = known
            .map(|e| e.id.clone())
            .ok_or_else(|| convert::invalid("evse", format!("there is no EVSE {:?}", request.evse)))?;
        let reader = desk.reader(evse.as_str()).map_err(Status::failed_precondition)?;
        let wanted = Milliamps(request.milliamps.into());
        let cap: Cap = desk.cap(&evse, wanted).map_err(Status::failed_precondition)?;
        let body = json!({ "milliamps": wanted.0 });
        self.0.record("evse.setpoint_test", evse.as_str(), caller.issuer, body).await?;
        let context = self.0.clone();
        let state = (desk, reader, cap, context, evse);
        let answers = stream::unfold(state, move |(desk, reader, cap, context, evse)| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let view = context.view();
            let shown = view.evses.iter().find(|e| e.id == evse);
            let granted = shown.and_then(|e| e.setpoint.as_ref()).map_or(Milliamps::ZERO, |s| s.limit);
            let of = |current: Milliamps| u32::try_from(current.0.max(0)).unwrap_or(u32::MAX);
            let currents = shown.and_then(|e| e.draw).and_then(|d| d.currents);
            let (read, problem) = match desk.setpoint(&reader).await {
                Ok(read) => (read, String::new()),
                Err(problem) => (None, problem),
            };
            let answer = TestSetpointResponse {
                wanted_milliamps: of(wanted.min(granted)),
                read_milliamps: read.map(of),
                draw_milliamps: currents.map(|c| c.map(of).to_vec()).unwrap_or_default(),
                problem,
            };
            Some((Ok(answer), (desk, reader, cap, context, evse)))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn check_site(&self, _: Request<CheckSiteRequest>) -> Result<Response<CheckSiteResponse>, Status> {
        let desk = self.desk()?;
        let checks = self.checks(desk);
        let of = |c: Check| SiteCheck { what: c.what, ok: c.ok, found: c.found, advice: c.advice };
        Ok(Response::new(CheckSiteResponse {
            site: desk.config().name.clone(),
            checks: checks.into_iter().map(of).collect(),
        }))
    }

    async fn clear_relay(
        &self,
        request: Request<ClearRelayRequest>,
    ) -> Result<Response<ClearRelayResponse>, Status> {
        let caller = Caller::of(&request)?;
        let relay = request.into_inner().relay;
        let shown = self.0.view();
        let id = match shown.relays.iter().find(|r| r.id.as_str() == relay) {
            None => return Err(convert::invalid("relay", format!("there is no relay {relay:?}"))),
            Some(shown) if !shown.problem.starts_with("welded") => {
                return Err(Status::failed_precondition(format!(
                    "the contactor of {relay:?} is not locked out"
                )));
            }
            Some(shown) => shown.id.clone(),
        };
        self.desk()?.clear(&id).map_err(|why| convert::invalid("relay", why))?;
        self.0.record("relay.clear_ordered", &relay, caller.issuer, json!({})).await?;
        Ok(Response::new(ClearRelayResponse {}))
    }
}
