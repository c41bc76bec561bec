use super::{super::*, full, shown};

#[test]
fn github_actions_says_it_all() {
    insta::assert_snapshot!(shown(&GitHub::default(), &full(CiKind::GitHub)), @r#"
    --- .github/workflows/storefront.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    name: storefront
    on:
      push:
        branches:
          - main
          - release/*
      pull_request:
        types:
          - opened
          - synchronize
          - closed
      schedule:
        - cron: "30 4 * * 1-5"
      workflow_dispatch: {}
    permissions: {}
    jobs:
      preview:
        if: github.event_name == 'push' || github.event_name == 'pull_request' && github.event.action != 'closed' || github.event_name == 'schedule' || github.event_name == 'workflow_dispatch'
        runs-on: ubuntu-latest
        timeout-minutes: 20
        permissions:
          contents: read
          pull-requests: write
        environment:
          name: preview-${{ github.event.pull_request.number || github.run_id }}
          url: ${{ steps.deployer.outputs.url }}
        concurrency:
          group: preview-${{ github.event.pull_request.number || github.run_id }}
          cancel-in-progress: true
        outputs:
          url: ${{ steps.deployer.outputs.url }}
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: preview
            id: deployer
            run: "exec deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
          - name: Clean up
            if: failure() || cancelled()
            run: exec deployer clean-up
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
      stop-preview:
        if: github.event_name == 'pull_request' && github.event.action == 'closed'
        runs-on: ubuntu-latest
        timeout-minutes: 20
        permissions:
          contents: read
          pull-requests: write
        concurrency:
          group: preview-${{ github.event.pull_request.number || github.run_id }}
          cancel-in-progress: true
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: stop-preview
            id: deployer
            run: exec deployer close
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
      deploy-all:
        if: github.event_name == 'push' || github.event_name == 'schedule' || github.event_name == 'workflow_dispatch'
        runs-on: ubuntu-latest
        needs:
          - preview
        timeout-minutes: 60
        permissions:
          contents: read
          id-token: write
        environment:
          name: production
          url: "https://awesome.com/"
        concurrency:
          group: production
          cancel-in-progress: false
          queue: max
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: Keep the deployer between runs
            uses: actions/cache@v5
            with:
              path: target
              key: deployer-${{ runner.os }}-${{ hashFiles('Cargo.lock') }}
          - name: deploy-all
            id: deployer
            run: exec cargo run --locked -- apply storefront
            env:
              FLOWLINE_AUDIENCE: "https://vault.awesome.com"
              url: ${{ needs.preview.outputs.url }}
              REGION: "eu: west #1"
              DATABASE_PASSWORD: ${{ secrets.DATABASE_PASSWORD }}
    ---
    note: job `preview`: GitHub stops nothing by its age; let the deployer do it
    "#);
}

#[test]
fn the_usual_wrapper_is_short() {
    let wrapper = Wrapper::deploy("storefront", ["deployer"]).unwrap();
    let rendered = GitHub::default().render(&wrapper).unwrap();
    insta::assert_snapshot!(rendered.files[".github/workflows/storefront.yml"], @"
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    name: storefront
    on:
      push:
        branches:
          - main
      workflow_dispatch: {}
    permissions: {}
    jobs:
      deploy:
        runs-on: ubuntu-latest
        timeout-minutes: 60
        permissions:
          contents: read
        concurrency:
          group: storefront
          cancel-in-progress: false
          queue: max
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: deploy
            id: deployer
            run: exec deployer apply storefront
    ");
    assert!(Wrapper::deploy("Store Front", ["deployer"]).is_err());
}
