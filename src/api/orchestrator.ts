import { WAKE_SIGNAL } from '#contracts/activities.ts'
import {
  type Client,
  type ConnectionOptions,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
} from '@temporalio/client'

/** How the API reaches workflows. Each is safe to repeat; each fails when Temporal cannot be reached in time. */
export interface Orchestrator {
  /** Starts the workflow of a run, unless it has been started. */
  start(run: { readonly runId: string; readonly agent: string }): Promise<void>
  /** Tells a run's workflow to look at its row. A workflow that is gone needs no telling. */
  wake(runId: string): Promise<void>
  isUp(): Promise<boolean>
}

/** A request that takes longer is given up and repeated. */
const LIMIT_MS = 5_000

/** A Temporal that comes back is noticed within this time: gRPC's own patience grows to two minutes. */
const RECONNECT_MAX_MS = 2_000

/**
 * For the connection of an orchestrator. The client's own retries are off: the dispatcher repeats, and a retry whose
 * timer outlives the connection is an uncaught exception (client 1.24).
 */
export const connectionOptions: ConnectionOptions = {
  interceptors: [],
  channelArgs: { 'grpc.max_reconnect_backoff_ms': RECONNECT_MAX_MS },
}

export function temporalOrchestrator(options: { readonly client: Client; readonly taskQueue: string }): Orchestrator {
  const { client, taskQueue } = options
  const { connection } = client
  const inTime = <Answer>(ask: () => Promise<Answer>) => connection.withDeadline(Date.now() + LIMIT_MS, ask)
  return {
    async start({ runId, agent }) {
      try {
        await inTime(() =>
          client.workflow.start(agent, {
            args: [{ runId }],
            taskQueue,
            workflowId: runId,
            workflowIdConflictPolicy: 'USE_EXISTING',
            workflowIdReusePolicy: 'REJECT_DUPLICATE',
          }),
        )
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
      }
    },
    async wake(runId) {
      try {
        await inTime(() => client.workflow.getHandle(runId).signal(WAKE_SIGNAL))
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error
      }
    },
    async isUp() {
      await inTime(() => connection.workflowService.getSystemInfo({}))
      return true
    },
  }
}
