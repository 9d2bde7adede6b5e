import { WAKE_SIGNAL } from '#contracts/activities.ts'
import type { CommandedRun } from '#db/command.ts'
import {
  Connection,
  type Client,
  type ConnectionOptions,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
} from '@temporalio/client'
import { attributesOf, ensureSearchAttributes, isForbidden, isUnknownAttribute } from './search-attributes.ts'
import { inTime } from './temporal-call.ts'

/** How the API reaches workflows. Each is safe to repeat; each fails when Temporal cannot be reached in time. */
export interface Orchestrator {
  /** Starts the workflow of a run, unless it has been started. */
  start(run: CommandedRun): Promise<void>
  /** Tells a run's workflow to look at its row. A workflow that is gone needs no telling. */
  wake(runId: string): Promise<void>
  isUp(): Promise<boolean>
}

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
  const attributes = searchAttributes(client)
  void attributes.ready()
  const start = (run: CommandedRun, isFound: boolean) =>
    inTime(connection, () =>
      client.workflow.start(run.agent, {
        args: [{ runId: run.id }],
        taskQueue,
        workflowId: run.id,
        workflowIdConflictPolicy: 'USE_EXISTING',
        workflowIdReusePolicy: 'REJECT_DUPLICATE',
        // Handed on to its activities: calls of urgent runs come first, and projects take turns.
        priority: { priorityKey: run.priority, fairnessKey: run.projectId },
        staticSummary: `${run.agent} · ${run.model}`,
        staticDetails: detailsOf(run),
        ...(isFound && { typedSearchAttributes: attributesOf(run) }),
      }),
    )
  return {
    async start(run) {
      try {
        await start(run, await attributes.ready()).catch((error: unknown) => {
          if (!isUnknownAttribute(error)) throw error
          attributes.refused()
          return start(run, false)
        })
      } catch (error) {
        if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error
      }
    },
    async wake(runId) {
      try {
        await inTime(connection, () => client.workflow.getHandle(runId).signal(WAKE_SIGNAL))
      } catch (error) {
        if (!(error instanceof WorkflowNotFoundError)) throw error
      }
    },
    async isUp() {
      await inTime(connection, () => connection.workflowService.getSystemInfo({}))
      return true
    },
  }
}

/** What Temporal's own page says of a run besides its events. */
function detailsOf({ id, projectId, model, envelopeId, priority }: CommandedRun): string {
  return [
    `run \`${id}\``,
    `project \`${projectId}\``,
    `model **${model}**`,
    `envelope \`${envelopeId}\``,
    `priority ${priority}`,
  ].join('\n\n')
}

/**
 * The namespace's search attributes: made at the start, and again after the server did not know one. A server that does
 * not let us make them may have them all the same, so runs are started with them until they are refused.
 */
function searchAttributes({ connection, options: { namespace } }: Client) {
  let making: Promise<void> | undefined
  let mayMake = true
  let areKnown = true
  const make = async (): Promise<void> => {
    if (!mayMake || !(connection instanceof Connection)) return
    try {
      await ensureSearchAttributes({ connection, namespace })
    } catch (error) {
      mayMake = !isForbidden(error)
      if (mayMake) making = undefined
    }
  }
  return {
    /** Whether to try with them. */
    async ready(): Promise<boolean> {
      making ??= make()
      await making
      return areKnown
    },
    /** They were refused: they were made a moment ago, or cannot be made. */
    refused(): void {
      if (mayMake) making = undefined
      else areKnown = false
    },
  }
}
