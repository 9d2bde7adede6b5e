import OpenAI from 'openai'
import { text, type Answer, type TestApi, type Tenant } from './api.ts'
import type { TestGateway } from './gateway.ts'

/** A further key of a project. */
export async function makeKey(
  api: TestApi,
  tenant: Tenant,
  body: object = {},
): Promise<{ id: string; secret: string }> {
  const path = `/api/v1/projects/${tenant.projectId}/keys`
  const made = await api.make(path, { key: api.operatorKey, body: { name: 'another', ...body } })
  return { id: text(made, 'id'), secret: text(made, 'secret') }
}

/** Status and code of one small call at the gateway; 200 when it was answered. */
export async function call(gateway: TestGateway, key: string): Promise<readonly [number, string | null | undefined]> {
  const messages = [{ role: 'user' as const, content: 'When was the mill built?' }]
  try {
    await gateway.client(key).chat.completions.create({ model: 'steady', max_tokens: 20, messages })
    return [200, null]
  } catch (error) {
    if (error instanceof OpenAI.APIError) return [Number(error.status), error.code]
    throw error
  }
}

/** What an answer says is wrong. */
export const said = ({ status, body }: Answer) => [status, body['code'], body['detail']]
