import { WorkflowNotFoundError, type Client, type WorkflowExecutionStatusName } from '@temporalio/client'
import { inTime } from './temporal-call.ts'

/** What Temporal knows of the runs' workflows. All of it throws when Temporal is away: then nothing is known. */
export interface WorkflowCensus {
  /** Runs whose workflow goes on, as far as the index has heard: it is behind by moments. */
  living(): Promise<ReadonlySet<string>>
  /** How a run's workflow ended, in a word; undefined while it goes on. */
  endOf(runId: string): Promise<string | undefined>
}

const PAGE_SIZE = 1_000
/** For all pages: what takes longer is given up until the next round. */
const LIST_TIMEOUT_MS = 30_000

const GOING_ON: ReadonlySet<WorkflowExecutionStatusName> = new Set(['RUNNING', 'CONTINUED_AS_NEW', 'PAUSED'])

export function temporalCensus(options: { readonly client: Client; readonly taskQueue: string }): WorkflowCensus {
  const { client, taskQueue } = options
  const query = `TaskQueue = "${taskQueue}" AND ExecutionStatus = "Running"`
  return {
    living: () =>
      client.connection.withDeadline(Date.now() + LIST_TIMEOUT_MS, async () => {
        const living = new Set<string>()
        for await (const { workflowId } of client.workflow.list({ query, pageSize: PAGE_SIZE })) living.add(workflowId)
        return living
      }),
    async endOf(runId) {
      try {
        const { status } = await inTime(client.connection, () => client.workflow.getHandle(runId).describe())
        return GOING_ON.has(status.name) ? undefined : status.name.toLowerCase().replaceAll('_', ' ')
      } catch (error) {
        if (error instanceof WorkflowNotFoundError) return 'not found'
        throw error
      }
    },
  }
}
