import { renderMessages } from '#activities/render.ts'
import { withHeartbeat } from '#activities/heartbeat.ts'
import type { BegunRun, CallActivities, ChatRequest, RunActivities } from '#contracts/activities.ts'
import { newId } from '#db/ids.ts'
import { invariant } from '#domain/invariant.ts'
import OpenAI from 'openai'
import type { ProviderPlace } from './calls-load.ts'

/** The input of a bare run stands in its id: there is no row to read it from. */
export function bareRunId(input: unknown): string {
  return `bare.${Buffer.from(JSON.stringify(input)).toString('base64url')}.${newId(Date.now())}`
}

function inputIn(runId: string): unknown {
  const input: unknown = JSON.parse(Buffer.from(runId.split('.')[1] ?? '', 'base64url').toString())
  return input
}

/**
 * What the kit asks for, without ledger and engine: the same beats, the same request by the same client library, a result of
 * the same size. Nothing is held, stored or limited.
 */
export function bareActivities(
  { url, apiKey }: ProviderPlace,
  model: { readonly name: string; readonly upstreamModel: string },
): CallActivities & Pick<RunActivities, 'beginRun' | 'finishRun'> {
  const client = new OpenAI({ baseURL: url, apiKey, maxRetries: 0 })
  return {
    beginRun: ({ runId }): Promise<BegunRun> =>
      Promise.resolve({
        input: inputIn(runId),
        model: model.name,
        onExhausted: 'pause',
        pauseDeadlineMs: 60_000,
      }),
    finishRun: () => Promise.resolve({ finished: true }),
    chat: (request) =>
      withHeartbeat(
        () => ({ path: request.path }),
        async (signal) => {
          const text = await ask({ client, upstreamModel: model.upstreamModel }, request, signal)
          const served = { route: 'steady', held: '0.000100 USD' }
          return { kind: 'answered', callId: newId(Date.now()), ref: newId(Date.now()), text, ...served }
        },
      ),
  }
}

/** Streamed to its end, with usage, as the engine sends it. */
async function ask(
  { client, upstreamModel }: { readonly client: OpenAI; readonly upstreamModel: string },
  { messages, maxTokens }: ChatRequest,
  signal: AbortSignal,
): Promise<string> {
  const rendered = renderMessages(messages, () => {
    throw new Error('a bare call refers to nothing')
  })
  const stream = await client.chat.completions.create(
    {
      model: upstreamModel,
      messages: [...rendered],
      max_tokens: maxTokens,
      stream: true,
      stream_options: { include_usage: true },
    },
    { signal },
  )
  let text = ''
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
  invariant(text !== '', 'the bare client got no answer')
  return text
}
