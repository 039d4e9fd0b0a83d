import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "src/gen", "test/out", "eslint.config.js"] },
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { project: ["tsconfig.json", "test/tsconfig.json"], tsconfigRootDir: import.meta.dirname } },
    rules: {
      // Indexing is checked by noUncheckedIndexedAccess, so ! says that the code knows better.
      "@typescript-eslint/no-non-null-assertion": "off",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // An empty string is the contract's way to say that there is no value.
      "@typescript-eslint/prefer-nullish-coalescing": "off",
      "@typescript-eslint/consistent-type-definitions": "off",
    },
  },
  {
    files: ["test/**"],
    rules: { "@typescript-eslint/no-unsafe-enum-assignment": "off" }, // values of a newer server
  },
);
