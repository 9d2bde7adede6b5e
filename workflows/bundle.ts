/** All that a worker runs: the agents, and the workflow that schedules start. */
export * from './index.ts'
export { scheduledRun } from './scheduled-run.ts'
