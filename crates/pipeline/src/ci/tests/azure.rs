use super::{super::*, full, shown};

#[test]
fn azure_has_a_stage_for_each_job() {
    insta::assert_snapshot!(shown(&Azure::default(), &full(CiKind::Azure)), @r#"
    --- azure-pipelines.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    trigger:
      branches:
        include:
          - main
          - release/*
    pr:
      branches:
        include:
          - "*"
    schedules:
      - cron: "30 4 * * 1-5"
        displayName: at 30 4 * * 1-5
        branches:
          include:
            - main
            - release/*
        always: "true"
    pool:
      vmImage: ubuntu-latest
    stages:
      - stage: preview
        dependsOn: []
        lockBehavior: runLatest
        jobs:
          - job: preview
            timeoutInMinutes: "20"
            steps:
              - checkout: self
                persistCredentials: "false"
              - bash: "deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
                name: deployer
                displayName: preview
              - bash: deployer clean-up
                displayName: Clean up
                condition: or(failed(), canceled())
      - stage: deploy_all
        dependsOn:
          - preview
        condition: "and(succeeded(), in(variables['Build.Reason'], 'IndividualCI', 'BatchedCI', 'Schedule', 'Manual'))"
        lockBehavior: sequential
        jobs:
          - deployment: deploy_all
            timeoutInMinutes: "60"
            environment: production
            variables:
              url: "$[ stageDependencies.preview.preview.outputs['deployer.url'] ]"
            strategy:
              runOnce:
                deploy:
                  steps:
                    - checkout: self
                      persistCredentials: "false"
                    - task: Cache@2
                      displayName: Keep the deployer between runs
                      inputs:
                        key: "\"deployer\" | \"$(Agent.OS)\" | Cargo.lock"
                        path: target
                    - bash: cargo run --locked -- apply storefront
                      name: deployer
                      displayName: deploy-all
                      env:
                        SYSTEM_ACCESSTOKEN: $(System.AccessToken)
                        FLOWLINE_AUDIENCE: "https://vault.awesome.com"
                        REGION: "eu: west #1"
                        DATABASE_PASSWORD: $(DATABASE_PASSWORD)
                        url: $(url)
    ---
    note: Azure starts nothing when a pull request is closed: give previews a time to live
    note: Azure Repos ignores `pr:`; add a build validation policy to the branch there
    note: job `preview`: `lockBehavior` acts through an exclusive lock check; add one to its environment
    note: job `preview`: Azure has no environments made at run time; it is an ordinary job, and the deployer keeps the history
    note: job `preview`: an Azure environment shows no address; read it in the summary
    note: job `preview`: Azure stops no environments; let the deployer end them by their age
    note: job `preview`: rights of the job token are set in the project
    note: job `deploy-all`: `lockBehavior` acts through an exclusive lock check; add one to its environment
    note: job `deploy-all`: an Azure environment shows no address; read it in the summary
    note: job `deploy-all`: set `DATABASE_PASSWORD` as secret variables of the pipeline; one that is not set arrives as its own name, `$(NAME)`
    note: job `deploy-all`: an identity is that of a service connection (workload identity federation); give its id as `service_connection`
    "#);
}

#[test]
fn an_identity_is_that_of_a_service_connection() {
    let service_connection = Some(Constant::new("0c8a").unwrap());
    let rendered = Azure { service_connection, ..Azure::default() }.render(&full(CiKind::Azure)).unwrap();
    let text = &rendered.files["azure-pipelines.yml"];
    assert!(text.contains("FLOWLINE_SERVICE_CONNECTION: \"0c8a\"\n"), "{text}");
    assert!(!rendered.notes.iter().any(|note| note.contains("service connection")), "{:?}", rendered.notes);
}
