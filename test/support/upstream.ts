import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Server } from 'node:net'
import { onTestFinished } from 'vitest'
import type { ProviderChatRequest } from '#providers/provider.ts'

/** A request as it arrived at a provider. */
export interface SeenRequest {
  readonly method: string | undefined
  readonly path: string | undefined
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: unknown
}

export interface Upstream {
  readonly url: string
  /** Each of them: what a client repeats is in here. */
  readonly requests: readonly SeenRequest[]
}

/** A provider that answers as a test wants it. */
export async function useUpstream(answer: (response: ServerResponse, request: SeenRequest) => void): Promise<Upstream> {
  const requests: SeenRequest[] = []
  const server = createServer((request, response) => {
    void receive(request).then((seen) => {
      requests.push(seen)
      return answer(response, seen)
    })
  })
  const url = await listen(server)
  onTestFinished(() => server.closeAllConnections())
  return { url, requests }
}

async function receive(request: IncomingMessage): Promise<SeenRequest> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(Buffer.from(chunk))
  const text = Buffer.concat(chunks).toString()
  const { method, url: path, headers } = request
  return { method, path, headers, body: text === '' ? null : JSON.parse(text) }
}

/** The address of a server on a free loopback port; it goes with the test. */
export async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  // A server that listens on TCP has an address of this form.
  // oxlint-disable-next-line typescript/consistent-type-assertions
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
}

export function sendJson(response: ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

/** Server-sent events as OpenAI writes them; a text is written as it is. */
export function sendEvents(response: ServerResponse, events: readonly unknown[]): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  response.end(events.map((event) => (typeof event === 'string' ? event : dataOf(event))).join(''))
}

export function dataOf(event: unknown): string {
  return `data: ${JSON.stringify(event)}\n\n`
}

export const DONE = 'data: [DONE]\n\n'

/** A chunk of a chat completion's stream. */
export function chunkOf(delta: object, finishReason: string | null = null, more: object = {}): object {
  return {
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1_767_225_600,
    model: 'm',
    choices: [{ index: 0, delta, logprobs: null, finish_reason: finishReason }],
    ...more,
  }
}

/** Events as Anthropic writes them, each under its name. */
export function sendMessageEvents(
  response: ServerResponse,
  events: readonly { readonly type: string; readonly [field: string]: unknown }[],
): void {
  response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' })
  response.end(events.map((event) => `event: ${event.type}\n${dataOf(event)}`).join(''))
}

/** A chat that is asked of an upstream of this kind. */
export function chatOf(change: Partial<ProviderChatRequest> = {}): ProviderChatRequest {
  return {
    upstreamModel: 'm',
    body: { messages: [{ role: 'user', content: 'When was the mill built?' }] },
    maxOutputTokens: 50,
    clientRequestId: 'call:1',
    timeoutMs: 5_000,
    signal: new AbortController().signal,
    ...change,
  }
}
