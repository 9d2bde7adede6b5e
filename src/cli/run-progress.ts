import { setTimeout as delay } from 'node:timers/promises'
import { isLastEvent, type EventView } from '#contracts/api-event.ts'
import type { RunView } from '#contracts/api-run.ts'
import { ApiProblem } from '#client/api-problem.ts'
import type { PurserClient } from '#client/purser-client.ts'

/** A server that is restarted is back within seconds; the run itself goes on meanwhile. */
const RECONNECT_MS = 500
const MAX_RECONNECTS = 60

export interface FollowOptions {
  /** Called with each event, and the path of the call it is about, if it is about one. */
  readonly onEvent: (event: EventView, path: string | undefined) => void
  /** Follow only events after this one. */
  readonly after?: string
  /** Also stop at a pause, instead of waiting for the run to go on. */
  readonly stopsAtPause?: boolean
}

/** Follows a run until it ends (or pauses), and answers how it stands then and the last event seen. */
export async function followRun(
  api: PurserClient,
  runId: string,
  { onEvent, after, stopsAtPause = false }: FollowOptions,
): Promise<{ readonly run: RunView; readonly lastEventId: string | undefined }> {
  const paths = new Map<string, string>()
  let lastEventId = after
  for (let reconnects = 0; ; reconnects += 1) {
    const end = new AbortController()
    try {
      for await (const event of api.events(runId, {
        ...(lastEventId !== undefined && { after: lastEventId }),
        signal: end.signal,
      })) {
        lastEventId = event.id
        onEvent(event, await pathOf(api, { runId, event, paths }))
        if (isLastEvent(event) || (stopsAtPause && event.kind === 'run.paused')) {
          return { run: await api.get('/runs/{id}', { params: { path: { id: runId } } }), lastEventId }
        }
      }
    } catch (error) {
      if (reconnects >= MAX_RECONNECTS || isFinal(error)) throw error
    } finally {
      end.abort()
    }
    if (reconnects >= MAX_RECONNECTS) throw new Error(`The events of run ${runId} ended before the run did.`)
    await delay(RECONNECT_MS)
  }
}

/** A refusal stays one, however often it is asked for. */
function isFinal(error: unknown): boolean {
  return error instanceof ApiProblem && error.status < 500
}

/** Events name calls by id; people know them by their path. */
async function pathOf(
  api: PurserClient,
  { runId, event, paths }: { readonly runId: string; readonly event: EventView; readonly paths: Map<string, string> },
): Promise<string | undefined> {
  const callId = event.data['callId']
  if (typeof callId !== 'string') return undefined
  if (!paths.has(callId)) {
    const { calls } = await api.get('/runs/{id}/calls', { params: { path: { id: runId } } })
    for (const call of calls) paths.set(call.id, call.path)
  }
  return paths.get(callId)
}
