import type { CatalogModel } from '#contracts/catalog.ts'

/** Anthropic's word for a date that is not known. */
const UNKNOWN_DATE = '1970-01-01T00:00:00Z'

/** A model as `GET /v1/models/{model}` answers it to Anthropic's clients: what the widest of its routes takes. */
export function toModelInfo({ name, routes }: CatalogModel) {
  return {
    type: 'model' as const,
    id: name,
    display_name: name,
    created_at: UNKNOWN_DATE,
    max_input_tokens: Math.max(...routes.map(({ contextTokens }) => contextTokens)),
    max_tokens: Math.max(...routes.map(({ maxOutputTokens }) => maxOutputTokens)),
    capabilities: null,
    lifecycle: 'active' as const,
    deprecated_at: null,
    retires_at: null,
    line: null,
  }
}

/** All in one page. */
export function toModelPage(models: readonly CatalogModel[]) {
  const data = models.filter(({ kind }) => kind === 'chat').map(toModelInfo)
  return { data, has_more: false, first_id: data[0]?.id ?? null, last_id: data.at(-1)?.id ?? null }
}
