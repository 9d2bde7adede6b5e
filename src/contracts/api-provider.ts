import { z } from 'zod'
import { nextCursorSchema, versionSchema } from './api-page.ts'
import {
  apiKeySchema,
  baseUrlSchema,
  maxTokensFieldSchema,
  misplacedOptions,
  providerKindSchema,
} from './provider-settings.ts'

const moment = z.iso.datetime()

export const PROVIDER_NAME = /^[a-z0-9][a-z0-9._:-]{0,99}$/i

const name = z
  .string()
  .regex(PROVIDER_NAME, 'letters, digits and . _ : - (at most 100)')
  .describe('What routes of the catalog call it.')

const apiKey = apiKeySchema.meta({ writeOnly: true, description: 'Stored encrypted, and never answered.' })
const baseUrl = baseUrlSchema.describe('http or https; addresses of private networks too.')
const maxTokensField = maxTokensFieldSchema.describe(
  'Of the kinds `openai` and `openrouter`; left out: `max_completion_tokens` at OpenAI and Azure, `max_tokens` elsewhere.',
)
const promptCache = z.boolean().describe('Of the kind `anthropic`: whether prompts are written to its cache.')

export const providerRequestSchema = z
  .strictObject({
    name,
    kind: providerKindSchema.default('openai').describe('What it speaks.'),
    baseUrl,
    apiKey,
    maxTokensField: maxTokensField.optional(),
    promptCache: promptCache.optional(),
  })
  .superRefine((settings, context) => {
    for (const { field, message } of misplacedOptions(settings)) {
      context.addIssue({ code: 'custom', path: [field], message })
    }
  })

export const providerChangeSchema = z.strictObject({
  kind: providerKindSchema.optional(),
  baseUrl: baseUrl
    .optional()
    .describe('Only with `apiKey`: a stored key is sent to no address but the one that it was stored for.'),
  apiKey: apiKey.optional(),
  maxTokensField: maxTokensField.nullish().describe('`null`: as usual.'),
  promptCache: promptCache.nullish().describe('`null`: as usual.'),
})

export const providerSchema = z
  .object({
    name: z.string(),
    source: z
      .enum(['environment', 'stored'])
      .describe('`environment`: of the API process that answers; changed there, in PURSER_PROVIDERS.'),
    kind: providerKindSchema,
    baseUrl: z.string(),
    maxTokensField: maxTokensFieldSchema.nullable(),
    promptCache: z.boolean().nullable(),
    keyHint: z.string().describe('The last four characters of its key; of a short key none.'),
    keyChangedAt: moment.nullable(),
    encryptedBy: z.string().nullable().describe('The id of the line in PURSER_SECRETS_KEY_FILE.'),
    createdAt: moment.nullable(),
    changedAt: moment.nullable(),
    version: versionSchema.optional().describe('Of a stored one: rises with its changes; its ETag begins with it.'),
  })
  .meta({ id: 'Provider' })

export const providerListSchema = z.object({ providers: z.array(providerSchema), nextCursor: nextCursorSchema })

export const secretListSchema = z.object({
  encryptsWith: z.string().nullable().describe('The key that the API process which answers encrypts with.'),
  secrets: z
    .array(
      z.object({
        encryptedBy: z.string().nullable().describe('`null`: in clear, until a process with a key encrypts them.'),
        count: z.int(),
      }),
    )
    .describe('How many secrets each key encrypts. A key that none is under may be taken out of the file.'),
})

export type ProviderView = z.infer<typeof providerSchema>
export type ProviderChange = z.infer<typeof providerChangeSchema>
