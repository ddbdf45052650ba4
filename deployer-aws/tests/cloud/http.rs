//! The way from the SDK's clients to the simulated AWS: requests take a moment, are counted, and can be struck.

use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ecs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::time::TimeSource;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use bollard::Docker;
use deployer_aws::{AwsBackend, AwsOptions, AwsSecrets, DynamoStore, EcrOptions, EcrRegistry, Namespace};
use deployer_core::{
    AppName, Backend, CallInfo, Clock, Deployer, ErrorKind, Intercept, Next, Registry, ReleaseStore, Secrets,
};
use deployer_testkit::{At, Fault, World};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::cbor;
use super::elb_api::Form;
use super::names_api::{NAMESPACE, ZONE};
use super::records_api::TABLE;
use super::strike::{Strike, Strikes};
use super::{CLUSTER, Cloud, LISTENER, LOG_GROUP, NETWORK, Profile, Refusal, arn};

/// How requests to DynamoDB name it.
const DYNAMODB: &str = "DynamoDB_20120810";

/// When the simulated AWS begins, in milliseconds since 1970.
pub(crate) const EPOCH_MILLIS: u64 = 1_767_225_600_000;

/// One request that was made.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) operation: String,
    pub(crate) mutating: bool,
    pub(crate) at: u64,
    pub(crate) outcome: String,
}

/// The simulated AWS as everybody sees it.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: World,
    app: AppName,
    /// Tells apart what the SDK keeps for a whole process.
    region: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cloud: Cloud,
    planned: Vec<(At, Strike, bool)>,
    per_operation: BTreeMap<String, u64>,
    requests: Vec<Request>,
    /// What strikes at every attempt of an invocation, by its id.
    each: BTreeMap<String, Fault>,
    away: Option<u64>,
    /// What there was before the last change, if anybody may be answered out of it.
    before: Option<Box<Cloud>>,
    lagging: bool,
    /// Whether somebody has moved weights since the rules were looked at, and whether something was done meanwhile.
    moved: bool,
    unseen: bool,
}

impl Wire {
    pub(crate) fn new(world: &World, app: &AppName, cloud: Cloud, strikes: &Strikes) -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let planned = strikes.0.iter().map(|(at, strike)| (at.clone(), *strike, false)).collect();
        let lagging = strikes.any(|fault| *fault == Fault::Stale);
        let state = State { cloud, planned, lagging, ..State::default() };
        let region = format!("nowhere-{number}");
        Self(Arc::new(Shared { world: world.clone(), app: app.clone(), region, state: Mutex::new(state) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.world.clock().elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Looks at what there is now, and may change it.
    pub(crate) fn cloud<T>(&self, look: impl FnOnce(&mut Cloud) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        state.cloud.advance(now);
        let seen = look(&mut state.cloud);
        state.cloud.stirred = true;
        seen
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// How many requests were throttled, by operation.
    pub(crate) fn throttled(&self) -> BTreeMap<String, u64> {
        let mut throttled = BTreeMap::new();
        for request in self.lock().requests.iter().filter(|request| request.outcome == "throttled") {
            *throttled.entry(request.operation.clone()).or_default() += 1;
        }
        throttled
    }

    /// Whether a slot was changed after weights were moved by hand, and before anybody could see that they were.
    pub(crate) fn acted_unseen(&self) -> bool {
        self.lock().unseen
    }

    /// A process that deploys to it.
    pub(crate) fn process(&self) -> Process {
        self.process_that(false)
    }

    /// Somebody who looks: nothing strikes at what he asks, nobody counts it, and it takes no time.
    fn looker(&self) -> Process {
        self.process_that(true)
    }

    fn process_that(&self, looks: bool) -> Process {
        let (crashed, paused) = (watch::Sender::new(false), watch::Sender::new(None));
        Process(Arc::new(Running { wire: self.clone(), looks, crashed, paused }))
    }

    /// Counts a request and answers what strikes at it, and its number.
    fn begin(&self, request: &Asked) -> (Option<Fault>, usize) {
        let Asked { operation, invocation, .. } = request;
        let now = self.now();
        let mut state = self.lock();
        let (mutating, outcome) = (request.mutating(), "no answer".to_owned());
        state.requests.push(Request { operation: operation.clone(), mutating, at: now, outcome });
        let number = state.requests.len();
        let of_operation = state.per_operation.entry(operation.clone()).or_default();
        *of_operation += 1;
        let of_operation = *of_operation;
        if let Some(fault) = state.each.get(invocation) {
            return (Some(*fault), number);
        }
        let planned = state.planned.iter_mut().find(|(at, _, struck)| {
            !struck
                && match at {
                    At::Call(wanted) => *wanted == number as u64,
                    At::Operation(name, wanted) => name == operation && *wanted == of_operation,
                }
        });
        let strike = planned.map(|(_, strike, struck)| {
            *struck = true;
            *strike
        });
        if let Some(strike) = strike.filter(|strike| strike.each) {
            state.each.insert(invocation.to_owned(), strike.fault);
        }
        if let Some(Fault::Away { millis }) = strike.map(|strike| strike.fault) {
            state.away = Some(now + millis);
        }
        let away = state.away.is_some_and(|until| now < until);
        let fault = strike.map(|strike| strike.fault);
        (if away { Some(Fault::before(ErrorKind::Unavailable)) } else { fault }, number)
    }

    /// What AWS answers to a request, with its effect.
    fn effect(&self, request: &Asked, number: usize, stale: bool) -> HttpResponse {
        let now = self.now();
        let mut state = self.lock();
        state.cloud.advance(now);
        let stale = stale && request.may_lag();
        if state.cloud.profile.rates && !state.cloud.buckets.take(&request.operation, now) {
            state.outcome(number, "throttled");
            return request.refusal(400, request.throttling(), "Rate exceeded");
        }
        // Records are read as they are: what lags behind is the rest.
        if request.mutating() && state.lagging && request.service != DYNAMODB {
            state.before = Some(Box::new(state.cloud.clone()));
        }
        let answer = match state.before.take() {
            Some(mut before) if stale => {
                let answer = before.answer(request);
                state.before = Some(before);
                answer
            }
            before => {
                state.before = before;
                state.cloud.answer(request)
            }
        };
        state.cloud.stirred |= request.mutating();
        match request.operation.as_str() {
            "DescribeRules" if !stale => state.moved = false,
            "UpdateService" => state.unseen |= state.moved,
            _ => {}
        }
        state.cloud.advance(now);
        match answer {
            Ok(body) => {
                state.outcome(number, "ok");
                request.success(body)
            }
            Err(refusal) => {
                let words = format!("{}: {}", refusal.code, refusal.message);
                if refusal.rude && !stale {
                    state.cloud.breaks(format!("request {number}, {}: {words}", request.operation));
                }
                state.outcome(number, &words);
                request.response(400, request.error(refusal.code, &refusal.message, &refusal.reasons))
            }
        }
    }

    /// Lets somebody else do something.
    async fn interfere(&self, fault: Fault, number: usize) {
        let app = self.0.app.clone();
        match fault {
            Fault::Cancel => {
                let operator = Deployer::builder(self.looking()).clock(self.0.world.clock()).owner("operator").build();
                let _nothing_to_cancel = operator.cancel(&app, "an operator").await;
            }
            Fault::KillInstance => self.cloud(|cloud| cloud.kill_one(app.as_str(), number)),
            Fault::MoveWeights => {
                self.cloud(|cloud| cloud.move_weights(app.as_str(), number));
                self.lock().moved = true;
            }
            _ => {}
        }
    }

    /// The configuration of a process.
    pub(crate) fn config(&self, process: &Process) -> SdkConfig {
        let credentials = Credentials::new("test", "test", None, None, "nobody's");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(self.0.region.clone()))
            .endpoint_url("http://aws.invalid")
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .time_source(Time(self.0.world.clock()))
            .http_client(process.clone())
            .build()
    }

    /// A backend of a process: ECS and the load balancer here; images and records too where all is
    /// [whole](Profile::whole), and in the testkit's world elsewhere.
    pub(crate) fn backend(&self, process: &Process) -> Backend {
        let (config, parts) = (self.config(process), self.0.world.backend());
        let (registry, store): (Arc<dyn Registry>, Arc<dyn ReleaseStore>) = if self.is_whole() {
            let images = EcrRegistry::with_engine(&config, EcrOptions::default(), no_engine());
            (Arc::new(images), Arc::new(DynamoStore::new(&config, TABLE)))
        } else {
            (parts.registry, parts.store)
        };
        AwsBackend::on(&config, self.options(), parts.builder, registry, store)
    }

    /// The backend of somebody who only looks.
    pub(crate) fn looking(&self) -> Backend {
        self.backend(&self.looker())
    }

    fn is_whole(&self) -> bool {
        self.lock().cloud.profile.whole
    }

    /// The secrets of a process.
    pub(crate) fn secrets(&self, process: &Process) -> Arc<dyn Secrets> {
        Arc::new(AwsSecrets::new(&self.config(process)))
    }

    pub(crate) fn options(&self) -> AwsOptions {
        let Profile { propagation, names, publishes, .. } = self.cloud(|cloud| cloud.profile.clone());
        let mut options = AwsOptions::new(CLUSTER, "vpc-1", "arn:aws:iam::123456789012:role/execution")
            .with_subnets(["subnet-1", "subnet-2"])
            .with_security_groups(["sg-1"])
            .with_listener(LISTENER)
            .with_log_group(LOG_GROUP)
            .with_propagation(Duration::from_millis(propagation))
            .with_poll(Duration::from_secs(2));
        if publishes {
            options = options.with_network_balancer(NETWORK);
        }
        if names {
            let arn = arn("servicediscovery", &format!("namespace/{NAMESPACE}"));
            options = options.with_namespace(Namespace::new(arn, ZONE));
        }
        options
    }
}

impl State {
    fn outcome(&mut self, number: usize, words: &str) {
        if let Some(request) = number.checked_sub(1).and_then(|index| self.requests.get_mut(index)) {
            request.outcome = words.to_owned();
        }
    }
}

/// The world's time, as the SDK takes it.
#[derive(Debug)]
struct Time(Arc<dyn Clock>);

impl TimeSource for Time {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(EPOCH_MILLIS) + self.0.elapsed()
    }
}

/// A request, read.
#[derive(Debug)]
struct Asked {
    /// Which of AWS's services is asked, where the request says so.
    service: String,
    operation: String,
    invocation: String,
    format: Format,
    body: String,
}

/// How a request is written, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    Cbor,
}

impl Asked {
    fn read(request: &HttpRequest) -> Self {
        let bytes = request.body().bytes().unwrap_or_default();
        let body = String::from_utf8_lossy(bytes).into_owned();
        let invocation = request.headers().get("amz-sdk-invocation-id").unwrap_or_default().to_owned();
        if request.headers().get("smithy-protocol") == Some("rpc-v2-cbor") {
            let operation = request.uri().rsplit('/').next().unwrap_or_default().to_owned();
            let body = cbor::read(bytes).to_string();
            return Self { service: String::new(), operation, invocation, format: Format::Cbor, body };
        }
        match request.headers().get("x-amz-target") {
            Some(target) => {
                let (service, operation) = target.split_once('.').unwrap_or_default();
                let names = service.starts_with("Route53AutoNaming");
                let operation = if names { operation.replace("Service", "Name") } else { operation.to_owned() };
                Self { service: service.to_owned(), operation, invocation, format: Format::Json, body }
            }
            None => {
                let operation = Form::read(&body).get("Action").to_owned();
                Self { service: String::new(), operation, invocation, format: Format::Form, body }
            }
        }
    }

    fn mutating(&self) -> bool {
        let asking = ["Describe", "List", "Filter", "Get", "BatchGet", "Query"];
        !asking.iter().any(|word| self.operation.starts_with(word))
    }

    /// Whether the answer may be older than the last change.
    fn may_lag(&self) -> bool {
        !self.mutating() && !self.body.contains("\"ConsistentRead\":true")
    }

    fn throttling(&self) -> &'static str {
        if self.format == Format::Form { "Throttling" } else { "ThrottlingException" }
    }

    fn success(&self, body: String) -> HttpResponse {
        let operation = &self.operation;
        let body = match self.format {
            Format::Json => body.into_bytes(),
            Format::Cbor => cbor::write(&serde_json::from_str(&body).unwrap_or_default()),
            Format::Form => {
                let metadata = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>";
                let result = format!("<{operation}Result>{body}</{operation}Result>");
                format!("<{operation}Response>{result}{metadata}</{operation}Response>").into_bytes()
            }
        };
        self.response(200, body)
    }

    fn refusal(&self, status: u16, code: &str, message: &str) -> HttpResponse {
        self.response(status, self.error(code, message, &[]))
    }

    /// An error as it is written, with the reasons of each part of a transaction.
    fn error(&self, code: &str, message: &str, reasons: &[&str]) -> Vec<u8> {
        let mut error = serde_json::json!({"__type": code, "message": message});
        if !reasons.is_empty() {
            error["CancellationReasons"] = reasons.iter().map(|reason| serde_json::json!({"Code": reason})).collect();
        }
        match self.format {
            Format::Json => error.to_string().into_bytes(),
            Format::Cbor => cbor::write(&error),
            Format::Form => {
                let message = message.replace('&', "&amp;").replace('<', "&lt;");
                let error =
                    format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
                format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>").into_bytes()
            }
        }
    }

    fn response(&self, status: u16, body: Vec<u8>) -> HttpResponse {
        let status = StatusCode::try_from(status).unwrap_or_else(|error| panic!("{error}"));
        let mut response = HttpResponse::new(status, body.into());
        if self.format == Format::Cbor {
            response.headers_mut().insert("smithy-protocol", "rpc-v2-cbor");
        }
        response
    }

    /// What AWS says when it has this trouble.
    fn trouble(&self, kind: ErrorKind) -> HttpResponse {
        match kind {
            ErrorKind::Throttled => self.refusal(400, self.throttling(), "Rate exceeded"),
            ErrorKind::PermissionDenied => {
                let form = self.format == Format::Form;
                let code = if form { "AccessDenied" } else { "AccessDeniedException" };
                self.refusal(if form { 403 } else { 400 }, code, "User is not authorized to perform it")
            }
            _ if self.format != Format::Form => {
                self.refusal(500, "ServerException", "Service Unavailable. Please try again later.")
            }
            _ => self.refusal(503, "ServiceUnavailable", "Service Unavailable. Please try again later."),
        }
    }
}

impl Cloud {
    fn answer(&mut self, request: &Asked) -> Result<String, Refusal> {
        let operation = request.operation.as_str();
        let unknown = || Err(Refusal::rude("UnknownOperationException", format!("{operation} is not known here")));
        if request.format == Format::Form {
            return self.elb(operation, &Form::read(&request.body)).unwrap_or_else(unknown);
        }
        let body = serde_json::from_str(&request.body).unwrap_or_default();
        let known = match request.service.split_once('_').map_or(request.service.as_str(), |(name, _)| name) {
            "AnyScaleFrontendService" => self.autoscaling(operation, &body),
            "Route53AutoNaming" => self.cloudmap(operation, &body),
            "DynamoDB" => self.dynamodb(operation, &body),
            "AmazonEC2ContainerRegistry" => self.ecr(operation, &body),
            "secretsmanager" => self.secretsmanager(operation, &body),
            "AmazonSSM" => self.parameter_store(operation, &body),
            _ if request.format == Format::Cbor => self.cloudwatch(operation, &body),
            _ => self.ecs(operation, &body),
        };
        known.map_or_else(unknown, |answer| answer.map(|body| body.to_string()))
    }
}

/// A process that deploys: what it asks AWS goes through here, and what it asks of the rest as well.
#[derive(Clone, Debug)]
pub(crate) struct Process(Arc<Running>);

#[derive(Debug)]
struct Running {
    wire: Wire,
    /// Whether it only looks.
    looks: bool,
    crashed: watch::Sender<bool>,
    paused: watch::Sender<Option<Instant>>,
}

impl Process {
    /// Returns when it was killed. No call of it returns any more.
    pub(crate) async fn crashed(&self) {
        let _ = self.0.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Returns when it stands still.
    pub(crate) async fn paused(&self) {
        let _ = self.0.paused.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn has_paused(&self) -> bool {
        self.0.paused.borrow().is_some()
    }

    async fn be_alive(&self) {
        if *self.0.crashed.borrow() {
            pending::<()>().await;
        }
        let until = *self.0.paused.borrow();
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }

    async fn crash<T>(&self) -> T {
        self.0.crashed.send_replace(true);
        pending().await
    }

    async fn exchange(self, request: Asked) -> Result<HttpResponse, ConnectorError> {
        let wire = &self.0.wire;
        if self.0.looks {
            return Ok(wire.effect(&request, 0, false));
        }
        self.be_alive().await;
        let (fault, number) = wire.begin(&request);
        let way = Duration::from_millis(5 + (number as u64 * 7) % 13);
        match fault {
            Some(Fault::CrashBefore) => return self.crash().await,
            Some(Fault::Pause { millis }) => {
                self.0.paused.send_replace(Some(Instant::now() + Duration::from_millis(millis)));
                self.be_alive().await;
            }
            Some(fault @ (Fault::Cancel | Fault::KillInstance | Fault::MoveWeights)) => {
                wire.interfere(fault, number).await
            }
            _ => {}
        }
        sleep(way).await;
        match fault {
            Some(Fault::Hang) => return pending().await,
            Some(fault) if fault == Fault::lost_request() => return Err(broken()),
            Some(Fault::Before { kind, .. }) => {
                wire.lock().outcome(number, "struck");
                return Ok(request.trouble(kind));
            }
            Some(Fault::Twice) => drop(wire.effect(&request, number, false)),
            _ => {}
        }
        let answer = wire.effect(&request, number, fault == Some(Fault::Stale));
        match fault {
            Some(Fault::CrashAfter) => return self.crash().await,
            Some(Fault::HangAfter) => return pending().await,
            _ => {}
        }
        sleep(way).await;
        self.be_alive().await;
        match fault {
            Some(fault) if fault == Fault::lost_reply() => Err(broken()),
            Some(Fault::After { kind, .. }) => Ok(request.trouble(kind)),
            _ => Ok(answer),
        }
    }
}

/// A Docker Engine that answers nobody: nothing is built or pushed here.
pub(crate) fn no_engine() -> Docker {
    let nobody = |_| Box::pin(async { Err(bollard::errors::Error::RequestTimeoutError) }) as Pin<Box<_>>;
    let engine = Docker::connect_with_custom_transport(nobody, None::<String>, 1, bollard::API_DEFAULT_VERSION);
    engine.unwrap_or_else(|error| panic!("{error}"))
}

fn broken() -> ConnectorError {
    ConnectorError::io("the connection was reset".into())
}

impl HttpConnector for Process {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.clone().exchange(Asked::read(&request)))
    }
}

impl HttpClient for Process {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

#[async_trait]
impl Intercept for Process {
    async fn intercept(&self, _: &CallInfo, next: &mut Next<'_>) -> deployer_core::Result<()> {
        self.be_alive().await;
        let result = next.run().await;
        self.be_alive().await;
        result
    }
}
