//! One-off tasks.

use aws_sdk_ecs::types::{
    CapacityProviderStrategyItem, ContainerOverride, DesiredStatus, LaunchType, Tag, TaskOverride,
};
use deployer_core::{Error, ErrorKind, Outcome, RemoveTask, Result, Retry, StartTask};
use tokio::time::Instant;

use super::task::{Of, Status};
use crate::failure::{failed, is};
use crate::naming::{self, tag};
use crate::options::Capacity;
use crate::site::Site;

impl Site {
    pub(super) async fn start_task(&self, request: &StartTask) -> Result<Outcome> {
        let app = &request.release.app;
        if self.has_task(request).await? {
            return Ok(Outcome::AlreadyThere);
        }
        let service = request.release.services.get(&request.service).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the release does not have the service")
                .with_resource(request.service.as_str())
        })?;
        let revision = service.revision(&request.service);
        let definition = self.definition(&request.release, &revision).await?;
        let tag = |key: &str, value: String| Tag::builder().key(key).value(value).build();
        let container = ContainerOverride::builder()
            .name(naming::container(&request.service))
            .set_command(Some(request.command.clone()).filter(|command| !command.is_empty()))
            .build();
        let mut call = self
            .ecs
            .run_task()
            .cluster(&self.options.cluster)
            .task_definition(&definition)
            // It runs once, however often it is asked for: the same token is the same task for a day.
            .client_token(naming::token(&[app.as_str(), &request.task.0]))
            .started_by(naming::starter(app))
            .group(format!("deployer:{}", request.service))
            .network_configuration(self.network()?)
            .overrides(TaskOverride::builder().container_overrides(container).build())
            .enable_ecs_managed_tags(true)
            .tags(tag(tag::APP, app.to_string()))
            .tags(tag(tag::SERVICE, request.service.to_string()))
            .tags(tag(tag::TASK, request.task.0.clone()));
        call = match &self.options.capacity {
            Capacity::Fargate => call.launch_type(LaunchType::Fargate),
            Capacity::Ec2 => call.launch_type(LaunchType::Ec2),
            Capacity::Providers(providers) => providers.iter().fold(call, |call, provider| {
                let item = CapacityProviderStrategyItem::builder().capacity_provider(&provider.name);
                match item.weight(provider.weight.into()).build() {
                    Ok(item) => call.capacity_provider_strategy(item),
                    Err(_) => call,
                }
            }),
        };
        let changes = self.changing(app, None);
        let answer = call.send().await;
        drop(changes);
        let answer = answer.map_err(|error| failed("ecs:RunTask", request.task.to_string(), error))?;
        let arns: Vec<String> = answer.tasks().iter().filter_map(|task| task.task_arn()).map(str::to_owned).collect();
        if let Some(failure) = answer.failures().first().filter(|_| arns.is_empty()) {
            return Err(no_room(request, failure.reason().unwrap_or_default()));
        }
        self.describe_tasks(app, arns).await?;
        Ok(Outcome::Created)
    }

    /// Whether the task was started before, whoever did it.
    async fn has_task(&self, request: &StartTask) -> Result<bool> {
        let app = &request.release.app;
        let known = || {
            let memory = self.memory();
            let mut tasks = memory.tasks.get(app).into_iter().flat_map(|tasks| tasks.values());
            tasks.any(|task| task.task.as_deref() == Some(&request.task.0))
        };
        if known() {
            return Ok(true);
        }
        let starter = naming::starter(app);
        let running = self.list_tasks(Of::Starter(&starter), DesiredStatus::Running);
        let stopped = self.list_tasks(Of::Starter(&starter), DesiredStatus::Stopped);
        let (running, stopped) = futures_util::future::try_join(running, stopped).await?;
        self.describe_tasks(app, running.into_iter().chain(stopped).collect()).await?;
        self.memory().errands.insert(app.clone(), Instant::now());
        Ok(known())
    }

    pub(super) async fn remove_task(&self, request: &RemoveTask) -> Result<Outcome> {
        let found = {
            let memory = self.memory();
            let tasks = memory.tasks.get(&request.app).into_iter().flatten();
            let mut ours = tasks.filter(|(_, task)| task.task.as_deref() == Some(&request.task.0));
            ours.next().map(|(arn, task)| (arn.clone(), task.clone()))
        };
        let Some((arn, task)) = found.filter(|(_, task)| !self.memory().removed.contains_key(&task.id)) else {
            return Ok(Outcome::AlreadyThere);
        };
        if matches!(task.status, Status::Pending | Status::Running) {
            let call = self.ecs.stop_task().cluster(&self.options.cluster).task(&arn).reason("removed by deployer");
            let _changes = self.changing(&request.app, None);
            match call.send().await {
                Ok(_) => {}
                Err(error) if is(&error, &["InvalidParameterException"]) => {}
                Err(error) => return Err(failed("ecs:StopTask", request.task.to_string(), error)),
            }
        }
        // ECS goes on telling of it for an hour.
        self.memory().removed.insert(task.id, Instant::now());
        Ok(Outcome::Changed)
    }
}

/// Why a task was not taken:
/// <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>.
fn no_room(request: &StartTask, reason: &str) -> Error {
    let error = Error::new(ErrorKind::Exhausted, "ECS has no capacity for the task")
        .with_resource(request.task.to_string())
        .with_context("AWS said", reason.to_owned());
    if reason.contains("Capacity is unavailable") || reason.starts_with("RESOURCE:") {
        error.with_retry(Retry::Soon)
    } else {
        error.with_help("see the cluster's capacity")
    }
}
