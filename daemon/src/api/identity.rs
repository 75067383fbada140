//! `IdentityService`. What changes is recorded before it is acknowledged; no key is in an answer or in the journal.

use ladewart_proto::v1::{
    CreateCertificateRequestRequest, CreateCertificateRequestResponse, CreateKeyRequest, CreateKeyResponse,
    DeleteIdentityRequest, DeleteIdentityResponse, ImportCertificateRequest, ImportCertificateResponse,
    ImportIdentityRequest, ImportIdentityResponse, ListIdentitiesRequest, ListIdentitiesResponse,
    SelectIdentityRequest, SelectIdentityResponse, identity_service_server::IdentityService,
};
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Caller, Context, convert};
use crate::identity::{Entry, Store, StoreError, Subject};

pub(super) struct Service(pub(super) Context);

impl Service {
    /// Works on the store where waiting for a disk holds up nobody.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let Some(store) = self.0.identities.clone() else {
            return Err(Status::failed_precondition("this daemon keeps no identities"));
        };
        let result = tokio::task::spawn_blocking(move || work(&store)).await;
        let result = result.map_err(|_| Status::internal("the store of identities broke"))?;
        result.map_err(|error| convert::identity_error(&error))
    }

    async fn changed(
        &self,
        kind: &str,
        name: &str,
        by: Caller,
        body: serde_json::Value,
    ) -> Result<(), Status> {
        self.0.record(kind, name, by.issuer, body).await
    }
}

fn told(entry: &Entry) -> serde_json::Value {
    let certificate = entry.certificate.as_ref();
    json!({
        "subject": certificate.map(|c| &c.subject),
        "fingerprint": certificate.map(|c| convert::hex(&c.fingerprint)),
        "not_after": certificate.map(|c| c.not_after),
    })
}

#[tonic::async_trait]
impl IdentityService for Service {
    async fn list_identities(
        &self,
        _: Request<ListIdentitiesRequest>,
    ) -> Result<Response<ListIdentitiesResponse>, Status> {
        let entries = self.with(Store::list).await?;
        let identities = entries.iter().map(convert::identity).collect();
        Ok(Response::new(ListIdentitiesResponse { identities }))
    }

    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let CreateKeyRequest { name, algorithm } = request.into_inner();
        let algorithm = convert::algorithm(algorithm)?;
        let entry = self.with(move |store| store.create_key(&name, algorithm)).await?;
        self.changed("identity.key_created", &entry.name, caller, json!({})).await?;
        Ok(Response::new(CreateKeyResponse { identity: Some(convert::identity(&entry)) }))
    }

    async fn create_certificate_request(
        &self,
        request: Request<CreateCertificateRequestRequest>,
    ) -> Result<Response<CreateCertificateRequestResponse>, Status> {
        let CreateCertificateRequestRequest { name, common_name, organization, country, dns_names } =
            request.into_inner();
        let subject = Subject { common_name, organization, country, dns_names };
        let request = self.with(move |store| store.request(&name, &subject)).await?;
        Ok(Response::new(CreateCertificateRequestResponse { request }))
    }

    async fn import_certificate(
        &self,
        request: Request<ImportCertificateRequest>,
    ) -> Result<Response<ImportCertificateResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ImportCertificateRequest { name, certificate } = request.into_inner();
        let entry = self.with(move |store| store.import_certificate(&name, &certificate)).await?;
        self.changed("identity.certificate_imported", &entry.name, caller, told(&entry)).await?;
        Ok(Response::new(ImportCertificateResponse { identity: Some(convert::identity(&entry)) }))
    }

    async fn import_identity(
        &self,
        request: Request<ImportIdentityRequest>,
    ) -> Result<Response<ImportIdentityResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ImportIdentityRequest { name, certificate, private_key } = request.into_inner();
        let entry = self.with(move |store| store.import(&name, &certificate, &private_key)).await?;
        self.changed("identity.imported", &entry.name, caller, told(&entry)).await?;
        Ok(Response::new(ImportIdentityResponse { identity: Some(convert::identity(&entry)) }))
    }

    async fn select_identity(
        &self,
        request: Request<SelectIdentityRequest>,
    ) -> Result<Response<SelectIdentityResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let selected = name.clone();
        let changed = self.with(move |store| store.select(&selected)).await?;
        if changed {
            self.changed("identity.selected", &name, caller, json!({})).await?;
        }
        Ok(Response::new(SelectIdentityResponse { changed }))
    }

    async fn delete_identity(
        &self,
        request: Request<DeleteIdentityRequest>,
    ) -> Result<Response<DeleteIdentityResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        let gone = name.clone();
        self.with(move |store| store.delete(&gone)).await?;
        self.changed("identity.deleted", &name, caller, json!({})).await?;
        Ok(Response::new(DeleteIdentityResponse {}))
    }
}
