use super::{super::*, full, shown};

#[test]
fn jenkins_has_a_declarative_file() {
    insta::assert_snapshot!(shown(&Jenkins::default(), &full(CiKind::Jenkins)), @r"
    --- Jenkinsfile
    // Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    // It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    pipeline {
        agent any
        triggers {
            cron('TZ=Etc/UTC\n30 4 * * 1-5')
        }
        stages {
            stage('preview') {
                when {
                    beforeAgent true
                    anyOf {
                        branch 'main'
                        branch 'release/*'
                        changeRequest()
                        triggeredBy cause: 'UserIdCause'
                    }
                }
                options {
                    timeout(time: 20, unit: 'MINUTES')
                }
                environment {
                    FLOWLINE_OUTPUT = 'flowline.env'
                }
                steps {
                    sh 'deployer preview --note \'it\'\\\'\'s $\'\'{{ new }} for $\'\'(you)\''
                }
                post {
                    success {
                        archiveArtifacts artifacts: 'flowline.env'
                    }
                    unsuccessful {
                        sh 'deployer clean-up'
                    }
                }
            }
            stage('deploy-all') {
                when {
                    beforeAgent true
                    not { changeRequest() }
                    anyOf {
                        branch 'main'
                        branch 'release/*'
                        triggeredBy cause: 'UserIdCause'
                    }
                }
                options {
                    timeout(time: 60, unit: 'MINUTES')
                    lock(resource: 'production')
                }
                environment {
                    REGION = 'eu: west #1'
                    DATABASE_PASSWORD = credentials('DATABASE_PASSWORD')
                }
                steps {
                    sh 'cargo run --locked -- apply storefront'
                }
            }
        }
    }
    ---
    note: Jenkins starts nothing when a change is closed: give previews a time to live
    note: which pushes and changes start a build is set in the multibranch project
    note: job `preview`: Jenkins stops no environments; let the deployer end them by their age
    note: job `preview`: Jenkins has no environments; the deployer keeps the history
    note: job `preview`: rights on the forge are those of the project's credential
    note: job `deploy-all`: its lock needs the plugin Lockable Resources
    note: job `deploy-all`: Jenkins has no environments; the deployer keeps the history
    note: job `deploy-all`: nothing is cached; the agent's workspace persists by itself
    note: job `deploy-all`: rights on the forge are those of the project's credential
    ");
}

#[test]
fn a_wrapper_whose_jobs_all_cancel_aborts_the_older_build() {
    let mut wrapper = full(CiKind::Jenkins);
    wrapper.jobs.truncate(1);
    let group = Label::new("preview").unwrap();
    wrapper.jobs[0].concurrency = Some(Concurrency { group, per_change: true, policy: Later::CancelRunning });
    let text = &Jenkins::default().render(&wrapper).unwrap().files["Jenkinsfile"];
    assert!(text.contains("options {\n        disableConcurrentBuilds(abortPrevious: true)\n"), "{text}");
}

#[test]
fn a_job_for_the_time_alone_does_not_run_for_a_push() {
    let mut wrapper = full(CiKind::Jenkins);
    wrapper.jobs.truncate(1);
    let mut when = |trigger| {
        wrapper.jobs[0].on = Some([trigger].into());
        let text = Jenkins::default().render(&wrapper).unwrap().files["Jenkinsfile"].clone();
        let lines: Vec<_> = text.lines().skip_while(|line| !line.contains("anyOf")).map(str::trim).collect();
        lines[..lines.iter().position(|line| *line == "options {").unwrap() - 1].join(" ")
    };
    insta::assert_snapshot!(when(Trigger::Schedule), @"anyOf { allOf { branch 'main' triggeredBy 'TimerTrigger' } allOf { branch 'release/*' triggeredBy 'TimerTrigger' } }");
    insta::assert_snapshot!(when(Trigger::Push), @"anyOf { allOf { branch 'main' not { triggeredBy 'TimerTrigger' } not { triggeredBy cause: 'UserIdCause' } } allOf { branch 'release/*' not { triggeredBy 'TimerTrigger' } not { triggeredBy cause: 'UserIdCause' } } }");
}
