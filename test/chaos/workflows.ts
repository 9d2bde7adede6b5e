import { Connection, WorkflowClient, WorkflowNotFoundError } from '@temporalio/client'
import { pollUntil } from '../support/poll.ts'
import type { Claim } from './claims.ts'

/** What is over tells Temporal last. */
const OVER_DEADLINE_MS = 120_000
/** Temporal may be away, killed, and a run may wait for a place. */
const TERMINATE_DEADLINE_MS = 1_800_000

/** What an operator sees and does in Temporal itself. */
export interface Workflows {
  /** Ends the workflow of a run; one that is over already is left as it is. */
  terminate(runId: string): Promise<void>
  /** That none is left. */
  over(): Promise<Claim>
  close(): Promise<void>
}

export async function connectWorkflows(address: string): Promise<Workflows> {
  const connection = await Connection.connect({ address })
  const client = new WorkflowClient({ connection })
  const count = async (query: string) => (await client.count(query)).count

  /** Throws while Temporal is away, or does not know it yet. */
  async function terminated(runId: string): Promise<true> {
    const handle = client.getHandle(runId)
    await handle.terminate('an operator has ended it').catch(async (error: unknown) => {
      if (!(error instanceof WorkflowNotFoundError)) throw error
      await handle.describe()
    })
    return true
  }

  return {
    async terminate(runId) {
      const what = `the workflow of run ${runId} is terminated`
      await pollUntil(() => terminated(runId), { what, deadlineMs: TERMINATE_DEADLINE_MS, intervalMs: 500 })
    },
    /** Temporal's own list follows a moment later. */
    async over() {
      const running = await pollUntil(
        async () => ((await count('ExecutionStatus = "Running"')) === 0 ? { left: 0 } : undefined),
        { what: 'no workflow runs', deadlineMs: OVER_DEADLINE_MS, intervalMs: 500 },
      ).catch(async () => ({ left: await count('ExecutionStatus = "Running"') }))
      const all = await count('')
      return {
        claim: 'no workflow is left in Temporal',
        numbers: `${all} workflows, ${running.left} running`,
        ok: running.left === 0 && all > 0,
      }
    },
    close: () => connection.close(),
  }
}
