import { MAX_VALUE_BYTES, type ToolActivities, type ToolRequest, type ToolResult } from '#contracts/activities.ts'
import { Problem, PROBLEMS } from '#contracts/codes.ts'
import type { CorpusStore } from '#contracts/corpus.ts'
import { Draining } from '#calls/gate-watch.ts'
import { canonical } from '#db/call.ts'
import type { Scope } from '#db/database.ts'
import { deriveId, sha256 } from '#db/ids.ts'
import { getPayload, putPayload } from '#db/payload.ts'
import { forkedPayload } from '#db/run-source.ts'
import { tenantOfRun } from '#db/run.ts'
import type { Database } from '#db/schema.ts'
import { utf8Length } from '#domain/token-bound.ts'
import { TOOLS } from '#tools/registry.ts'
import type { Kysely } from 'kysely'
import { asActivity, workerShutdown } from './failure.ts'
import { withHeartbeat } from './heartbeat.ts'

interface ToolDependencies {
  readonly db: Kysely<Database>
  /** What the tools may read: the corpora of one tenant. */
  readonly storeOf: (scope: Scope) => CorpusStore
}

export function createToolActivities(deps: ToolDependencies): ToolActivities {
  return {
    tool: (request) =>
      asActivity(() =>
        withHeartbeat(
          () => ({ path: request.path }),
          (signal) => useTool(deps, request, signal),
        ),
      ),
  }
}

/** The first result of a use is its result: a repeat after a crash finds it stored, and does not use the tool again. */
async function useTool(deps: ToolDependencies, request: ToolRequest, signal: AbortSignal): Promise<ToolResult> {
  const { runId, path, input } = request
  const scope = await tenantOfRun(deps.db, runId)
  const tool = TOOLS[request.tool]
  if (!tool) return failed('unknown_tool', `there is no tool ${request.tool}`)
  const digest = sha256(canonical(input)).toString('hex')
  const ref = deriveId(runId, 'tool', path, tool.name, digest)
  const stored = await getPayload(deps.db, scope, ref)
  if (stored?.isErased) return notStored()
  if (stored) return { kind: 'done', ref, value: valueOf(stored.body) }
  const ofSource = await forkedPayload(deps.db, scope, {
    runId,
    idIn: (sourceRunId) => deriveId(sourceRunId, 'tool', path, tool.name, digest),
  })
  if (ofSource?.isErased) return notStored()
  if (ofSource) {
    await putPayload(deps.db, scope, { id: ref, runId, kind: 'tool', body: ofSource.body })
    return { kind: 'done', ref, value: valueOf(ofSource.body) }
  }
  try {
    const { value, payload } = await tool.run(input, { store: deps.storeOf(scope), signal })
    const bytes = utf8Length(JSON.stringify(value))
    if (bytes > MAX_VALUE_BYTES) return failed('value_too_large', `${tool.name} gave ${bytes} bytes`)
    await putPayload(deps.db, scope, { id: ref, runId, kind: 'tool', body: bodyOf(payload, value) })
    return { kind: 'done', ref, value }
  } catch (error) {
    if (signal.reason instanceof Draining) throw workerShutdown()
    if (signal.aborted) return failed('aborted', 'the run was told to stop')
    if (error instanceof Problem && PROBLEMS[error.code].status < 500) return failed(error.code, error.message)
    throw error
  }
}

/** The payload with the value beside it: both are read back by a repeat. */
function bodyOf(payload: unknown, value: unknown): unknown {
  return { ...(typeof payload === 'object' ? payload : { payload }), value }
}

function valueOf(body: unknown): unknown {
  return typeof body === 'object' && body !== null && 'value' in body ? body.value : null
}

function notStored(): ToolResult {
  return failed('answer_not_stored', 'what the tool gave is not stored any more')
}

function failed(reason: string, detail: string): ToolResult {
  return { kind: 'failed', reason, detail }
}
