use super::{super::*, full, shown};

#[test]
fn gitlab_says_it_in_rules_and_resource_groups() {
    insta::assert_snapshot!(shown(&GitLab::default(), &full(CiKind::GitLab)), @r#"
    --- .gitlab-ci.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    workflow:
      auto_cancel:
        on_new_commit: interruptible
      rules:
        - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main"
        - if: "$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH =~ /^release\\/[^\\/]*$/"
        - if: $CI_PIPELINE_SOURCE == "merge_request_event"
        - if: $CI_PIPELINE_SOURCE == "schedule"
        - if: $CI_PIPELINE_SOURCE == "web"
    preview:
      timeout: "20 minutes"
      interruptible: true
      environment:
        name: preview-$CI_COMMIT_REF_SLUG
        url: $url
        on_stop: stop-preview
        auto_stop_in: "72 hours"
      variables:
        FLOWLINE_CODE_QUALITY: gl-code-quality-report.json
        FLOWLINE_OUTPUT: flowline.env
      script:
        - "deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
      after_script:
        - deployer clean-up
      artifacts:
        when: always
        reports:
          codequality: gl-code-quality-report.json
          dotenv: flowline.env
    stop-preview:
      needs: []
      rules:
        - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main"
          when: manual
          allow_failure: true
        - if: "$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH =~ /^release\\/[^\\/]*$/"
          when: manual
          allow_failure: true
        - if: $CI_PIPELINE_SOURCE == "merge_request_event"
          when: manual
          allow_failure: true
        - if: $CI_PIPELINE_SOURCE == "schedule"
          when: manual
          allow_failure: true
        - if: $CI_PIPELINE_SOURCE == "web"
          when: manual
          allow_failure: true
      environment:
        name: preview-$CI_COMMIT_REF_SLUG
        action: stop
      timeout: "20 minutes"
      variables:
        FLOWLINE_CODE_QUALITY: gl-code-quality-report.json
      script:
        - deployer close
      artifacts:
        when: always
        reports:
          codequality: gl-code-quality-report.json
    deploy-all:
      rules:
        - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main"
        - if: "$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH =~ /^release\\/[^\\/]*$/"
        - if: $CI_PIPELINE_SOURCE == "schedule"
        - if: $CI_PIPELINE_SOURCE == "web"
      needs:
        - preview
      timeout: "60 minutes"
      resource_group: production
      environment:
        name: production
        url: "https://awesome.com/"
      id_tokens:
        FLOWLINE_ID_TOKEN:
          aud: "https://vault.awesome.com"
      variables:
        FLOWLINE_CODE_QUALITY: gl-code-quality-report.json
        REGION: "eu: west #1"
      cache:
        key:
          files:
            - Cargo.lock
          prefix: deployer
        paths:
          - target
      script:
        - cargo run --locked -- apply storefront
      artifacts:
        when: always
        reports:
          codequality: gl-code-quality-report.json
    ---
    note: GitLab keeps schedules outside of files: add `30 4 * * 1-5` in the project
    note: job `preview`: rights of the job token are set in the project
    note: job `deploy-all`: set `DATABASE_PASSWORD` as masked, protected variables of the project
    note: job `deploy-all`: set the process mode of its resource group to `oldest_first` through the API
    "#);
}

#[test]
fn nothing_that_waits_is_cancelled_by_a_new_commit() {
    let said = |wrapper: &Wrapper| GitLab::default().render(wrapper).unwrap().files[".gitlab-ci.yml"].clone();
    let usual = said(&Wrapper::deploy("storefront", ["deployer"]).unwrap());
    assert!(usual.contains("workflow:\n  auto_cancel:\n    on_new_commit: none\n"), "{usual}");
    assert!(usual.contains("resource_group: storefront\n") && !usual.contains("interruptible"), "{usual}");
}

#[test]
fn what_runs_for_merge_requests_alone_is_named_by_their_numbers() {
    let mut wrapper = full(CiKind::GitLab);
    let file = |wrapper: &Wrapper| GitLab::default().render(wrapper).unwrap().files[".gitlab-ci.yml"].clone();
    // Outside of merge requests there is no number, and every push would share `preview-`.
    assert!(!file(&wrapper).contains("CI_MERGE_REQUEST_IID"));
    wrapper.jobs.truncate(1);
    wrapper.jobs[0].on = Some([Trigger::PullRequest].into());
    let text = file(&wrapper);
    assert_eq!(text.matches("name: preview-$CI_MERGE_REQUEST_IID\n").count(), 2, "{text}");
}
