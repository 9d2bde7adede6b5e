import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { startSandbox, type SandboxOptions } from '#sandbox/server.ts'

const loggedRequests = z.array(
  z.object({
    seq: z.number(),
    id: z.string(),
    callKey: z.string().nullable(),
    attempt: z.number().nullable(),
    model: z.string().nullable(),
    status: z.number(),
    begun: z.boolean(),
    finished: z.boolean(),
    clientGoneAt: z.string().optional(),
    endedAt: z.string().optional(),
    usage: z.object({ promptTokens: z.number(), completionTokens: z.number() }),
    billed: z.string(),
    keyName: z.string().nullable(),
  }),
)

/** A sandbox provider of its own for one test, and how to reach it. */
export interface TestSandbox {
  readonly url: string
  readonly controlUrl: string
  /** Never retries. */
  readonly client: OpenAI
  /** Never retries. */
  readonly anthropic: Anthropic
  /** Calls the control API and returns the parsed answer. */
  readonly control: (method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown) => Promise<unknown>
  readonly readLog: () => Promise<z.infer<typeof loggedRequests>>
  /** Ends the provider before the test does. */
  readonly close: () => Promise<void>
}

/** Starts a provider in this process, on a free loopback port; it goes with the test. */
export async function useSandbox(options: SandboxOptions = {}): Promise<TestSandbox> {
  const { url, controlUrl, close } = await startSandbox(options)
  onTestFinished(close)
  return { ...sandboxAt({ url, controlUrl }), close }
}

/** How to reach a provider that runs elsewhere, with the default keys. */
export function sandboxAt({ url, controlUrl }: Pick<TestSandbox, 'url' | 'controlUrl'>): Omit<TestSandbox, 'close'> {
  const control: TestSandbox['control'] = async (method, path, body) => {
    const response = await fetch(`${controlUrl}${path}`, {
      method,
      headers: { 'x-sandbox-control': 'control', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
    const answer: unknown = text === '' ? undefined : JSON.parse(text)
    return answer
  }
  return {
    url,
    controlUrl,
    control,
    client: new OpenAI({ baseURL: url, apiKey: 'sandbox-key', maxRetries: 0 }),
    anthropic: new Anthropic({
      baseURL: new URL('/', url).origin,
      apiKey: 'sandbox-key',
      maxRetries: 0,
      logLevel: 'off',
    }),
    readLog: async () => loggedRequests.parse(await control('GET', '/log')),
  }
}

export async function readAll<Item>(items: AsyncIterable<Item>): Promise<readonly Item[]> {
  const read: Item[] = []
  for await (const item of items) read.push(item)
  return read
}
