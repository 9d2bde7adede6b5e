import type { RunningEngine } from '#calls/start-engine.ts'
import { executeCall } from '#calls/execute.ts'
import { invariant } from '#domain/invariant.ts'
import OpenAI from 'openai'
import type { BenchEnvelope, Tenant } from './ledger-tenant.ts'
import { ROUTE } from './ledger-tenant.ts'
import type { Caller, Contender } from './load.ts'

/** Where the provider listens, and what opens it. */
export interface ProviderPlace {
  readonly url: string
  readonly apiKey: string
}

export const UPSTREAM_MODEL = 'sandbox-echo'
const MAX_TOKENS = 64
const DEADLINE_MS = 540_000

/** A prompt of so many bytes that nobody has seen before. */
export type Prompts = () => string

const WORDS = 'the harbour was dredged in spring and the mill stood idle until its owner paid what the county asked'

export function freshPrompts(bytes: number): Prompts {
  const text = `${WORDS} `.repeat(Math.ceil(bytes / WORDS.length))
  let count = 0
  return () => {
    count += 1
    const head = `Request ${count} of ${Date.now()}: `
    // Another beginning each time, so that no two prompts have a part of any size in common.
    return (head + text.slice(count % WORDS.length)).slice(0, bytes)
  }
}

/** Calls through the engine: handed over when their settlement is committed. */
export function oursOn(engine: RunningEngine, tenant: Tenant, prompts: Prompts): Contender {
  let next = 0
  let made = 0
  return {
    name: 'ours',
    prepare: async () => {},
    caller() {
      const envelope = tenant.envelopes[next % tenant.envelopes.length]
      invariant(envelope, 'the tenant has envelopes')
      next += 1
      return callerOf(async () => {
        made += 1
        await callOnce(engine, tenant, { envelope, path: `call/${made}/${Date.now()}`, content: prompts() })
      })
    },
  }
}

async function callOnce(
  engine: RunningEngine,
  { scope, apiKeyId }: Tenant,
  call: { readonly envelope: BenchEnvelope; readonly path: string; readonly content: string },
): Promise<void> {
  const { runId, envelopeId } = call.envelope
  const result = await executeCall(engine, {
    scope,
    runId,
    envelopeId,
    apiKeyId,
    path: call.path,
    model: ROUTE.name,
    body: { messages: [{ role: 'user', content: call.content }], maxTokens: MAX_TOKENS },
    mayRepeat: 1,
    signal: new AbortController().signal,
    deadlineMs: Date.now() + DEADLINE_MS,
  })
  if (result.kind !== 'answered') throw new Error(`a call was not answered: ${JSON.stringify(result)}`)
}

/** The same requests by the bare client: streamed to their end, with usage, as the engine sends them. */
export function bareClient({ url, apiKey }: ProviderPlace, prompts: Prompts): Contender {
  const client = new OpenAI({ baseURL: url, apiKey, maxRetries: 0 })
  return {
    name: 'bare',
    prepare: async () => {},
    caller: () =>
      callerOf(async () => {
        const stream = await client.chat.completions.create({
          model: UPSTREAM_MODEL,
          messages: [{ role: 'user', content: prompts() }],
          max_tokens: MAX_TOKENS,
          stream: true,
          stream_options: { include_usage: true },
        })
        let text = ''
        for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ''
        if (text === '') throw new Error('the bare client got no answer')
      }),
  }
}

function callerOf(next: () => Promise<void>): Caller {
  return { next, finish: async () => {} }
}
