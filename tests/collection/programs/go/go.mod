module collection

go 1.19
