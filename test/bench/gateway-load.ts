import { invariant } from '#domain/invariant.ts'
import { Agent, request, type ClientRequest, type IncomingMessage } from 'node:http'
import type { Prompts } from './calls-load.ts'
import { percentile } from './frame.ts'
import { press, pressCount, type Contender, type Load, type Measured } from './load.ts'

/** Something that answers chat completions. */
export interface Target {
  readonly name: string
  /** Without `/chat/completions`. */
  readonly url: string
  readonly key: string
  readonly model: string
}

export interface ChatLoad extends Load {
  readonly isStream: boolean
  readonly prompts: Prompts
}

/** Milliseconds until something of the answer's text was there, too. */
export type MeasuredChat = Measured & { readonly firstTokenMs: number }

const MAX_TOKENS = 64
const TIMEOUT_MS = 60_000
/** What has at least a character of text in it, in a stream or whole. */
const TEXT = /"content":"[^"]/

/** What is asked, and by how many at once. */
type Asking = Pick<ChatLoad, 'callers' | 'isStream' | 'prompts'>

/** The same requests to whatever answers them, over connections that are kept. */
export async function pressChat(target: Target, load: ChatLoad): Promise<MeasuredChat> {
  const firstTokens: number[] = []
  const measured = await withChats(target, load, {
    answered: (firstTokenMs) => void firstTokens.push(firstTokenMs),
    work: (contender) => press(contender, load),
  })
  return { ...measured, firstTokenMs: percentile(firstTokens, 0.5) }
}

/** So many requests that do not count. */
export async function warmUp(target: Target, load: Asking & { readonly operations: number }): Promise<void> {
  await withChats(target, load, { answered: () => {}, work: (contender) => pressCount(contender, load) })
}

async function withChats<Result>(
  target: Target,
  load: Asking,
  {
    answered,
    work,
  }: {
    readonly answered: (firstTokenMs: number) => void
    readonly work: (contender: Contender) => Promise<Result>
  },
): Promise<Result> {
  const agent = new Agent({ keepAlive: true, maxSockets: load.callers })
  try {
    return await work({
      name: target.name,
      prepare: async () => {},
      caller: () => ({
        next: async () => answered(await chatOnce(target, agent, load)),
        finish: async () => {},
      }),
    })
  } finally {
    agent.destroy()
  }
}

async function chatOnce(target: Target, agent: Agent, load: Pick<ChatLoad, 'isStream' | 'prompts'>): Promise<number> {
  const beganMs = performance.now()
  const response = await send(target, { agent, isStream: load.isStream, content: load.prompts() })
  let text = ''
  let firstMs: number | undefined
  for await (const chunk of response) {
    text += String(chunk)
    firstMs ??= TEXT.test(text) ? performance.now() - beganMs : undefined
  }
  const isWhole = response.statusCode === 200 && (!load.isStream || text.includes('data: [DONE]'))
  if (!isWhole || firstMs === undefined) {
    throw new Error(`${target.name} answered ${response.statusCode}: ${text.slice(0, 500)}`)
  }
  return firstMs
}

interface Asked {
  readonly agent: Agent
  readonly isStream: boolean
  readonly content: string
}

async function send(target: Target, asked: Asked): Promise<IncomingMessage> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  begin(target, asked).on('response', resolve).on('error', reject)
  return promise
}

function begin({ url, key, model }: Target, { agent, isStream, content }: Asked): ClientRequest {
  const body = JSON.stringify({
    model,
    messages: [{ role: 'user', content }],
    max_tokens: MAX_TOKENS,
    ...(isStream && { stream: true, stream_options: { include_usage: true } }),
  })
  const headers = {
    authorization: `Bearer ${key}`,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  }
  const sent = request(`${url}/chat/completions`, { agent, method: 'POST', headers, timeout: TIMEOUT_MS })
  sent.end(body)
  return sent
}

export interface OpenStreams {
  readonly count: number
  /** As a client does that goes away. */
  close(): void
}

/** Streams that have begun and are not over, each on a connection of its own. */
export async function openStreams(
  target: Target,
  { count, atOnce, prompts }: { readonly count: number; readonly atOnce: number; readonly prompts: Prompts },
): Promise<OpenStreams> {
  const agent = new Agent({ keepAlive: false })
  const open: IncomingMessage[] = []
  let left = count
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (left > 0) {
        left -= 1
        const response = await send(target, { agent, isStream: true, content: prompts() })
        invariant(response.statusCode === 200, `${target.name} answered ${response.statusCode}`)
        response.on('error', () => {})
        await begun(response)
        open.push(response)
      }
    }),
  )
  return {
    count: open.length,
    close() {
      for (const response of open) response.destroy()
      agent.destroy()
    },
  }
}

/** Text has come; what else comes is read and left. */
async function begun(response: IncomingMessage): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let text = ''
  response.on('data', (chunk: unknown) => {
    if (text.length > MOST_HEAD) return
    text += String(chunk)
    if (TEXT.test(text)) resolve()
  })
  response.once('end', () => reject(new Error(`a stream ended before its text: ${text.slice(0, 500)}`)))
  await promise
}

const MOST_HEAD = 8_192
