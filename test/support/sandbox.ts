import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { type SandboxOptions, startSandbox } from '#sandbox/server.ts'

/** A sandbox provider of its own for one test, and how to reach it. */
export interface TestSandbox {
  readonly url: string
  readonly controlUrl: string
  readonly client: OpenAI
  /** Calls the control API and returns the parsed answer. */
  readonly control: (method: 'GET' | 'PUT' | 'POST' | 'DELETE', path: string, body?: unknown) => Promise<unknown>
  /** Ends the provider before the test does. */
  readonly close: () => Promise<void>
}

/** Starts a provider in this process, on a free loopback port; it goes with the test. */
export async function useSandbox(options: SandboxOptions = {}): Promise<TestSandbox> {
  const { url, controlUrl, close } = await startSandbox(options)
  onTestFinished(close)
  const client = new OpenAI({ baseURL: url, apiKey: 'sandbox-key', maxRetries: 0 })
  return { url, controlUrl, client, control: controlOf(controlUrl), close }
}

function controlOf(controlUrl: string): TestSandbox['control'] {
  return async (method, path, body) => {
    const response = await fetch(`${controlUrl}${path}`, {
      method,
      headers: { 'x-sandbox-control': 'control', 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text}`)
    return text === '' ? undefined : JSON.parse(text)
  }
}
